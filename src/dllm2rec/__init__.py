"""Distil a large language model recommender into a small sequential one (DLLM2Rec, arXiv:2405.00338)."""
