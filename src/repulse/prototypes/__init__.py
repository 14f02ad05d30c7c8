"""Partition the output space: class prototypes, and how far apart they are."""

# Importing these modules enters their methods in the registry.
from repulse.prototypes import (  # noqa: F401
    auto,
    closed_form,
    hadamard,
    hyperspherical,
    kerdock,
    repulsion_linf,
    repulsion_sphere,
)
from repulse.prototypes.bounds import Bound
from repulse.prototypes.methods import METHODS, make_prototypes
from repulse.prototypes.prototypes import Metric, Prototypes
from repulse.prototypes.separation import Measure, Separation, measure

__all__ = ["METHODS", "Bound", "Measure", "Metric", "Prototypes", "Separation", "make_prototypes", "measure"]
