"""Prove it: radii within which an answer cannot change."""

# Each enters its method; `auto` asks in this order.
from repulse.certification import linf_distance_method, lipschitz_method, smoothing_method  # noqa: F401
