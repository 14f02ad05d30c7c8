"""Somebody else's model."""
