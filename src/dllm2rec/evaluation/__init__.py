"""Ranks over the whole catalogue, and everything that follows from ranks."""
