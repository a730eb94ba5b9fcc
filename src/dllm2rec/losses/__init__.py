"""Recommendation losses: pure functions on tensors, and the settings that choose one."""
