"""Prove it: radii within which an answer cannot change."""
