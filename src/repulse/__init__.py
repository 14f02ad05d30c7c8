"""Robust classifiers from repulsive class prototypes, and an honest measure of robustness."""
