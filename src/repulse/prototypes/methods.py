"""The registry of prototype methods.

A new method is one function of `(n, d)` under `@closed_form(name, metric)`, or one of `(n, d, seed, steps)` that
returns `Prototypes` under `@METHODS.register(name)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
from repulse.prototypes.prototypes import Metric, Prototypes

Method = Callable[[int, int, int, int | None], Prototypes]
"""`(n, d, seed, steps or None) -> Prototypes`; raises RepulseError where (n, d) is impossible."""

Construction = Callable[[int, int], Tensor]
"""`(n, d) -> points (n, d)`: a closed form, the same every time."""

METHODS: Registry[Method] = Registry("prototype method")


def closed_form(name: str, metric: Metric) -> Callable[[Construction], Construction]:
    """Decorate a construction to enter it in `METHODS`; the construction itself stays as it is."""

    def enter(construction: Construction) -> Construction:
        @METHODS.register(name)
        def make(n: int, d: int, seed: int, steps: int | None) -> Prototypes:  # noqa: ARG001
            if steps is not None:
                raise RepulseError(
                    f"method {name!r} is a closed form and takes no steps, got steps={steps}: leave them out"
                )
            return Prototypes(construction(n, d), metric)

        return construction

    return enter


def make_prototypes(method: str, n: int, d: int, *, seed: int = 0, steps: int | None = None) -> Prototypes:
    """Make `n` class prototypes in `d` dimensions.

    >>> make_prototypes("auto", 10, 16).provenance["chosen"]
    'simplex'

    Spherical methods (metric `cosine`) return points of norm 1, `max-mahalanobis` of norm 10, `hadamard` sign vectors.

    Args:
        method: a name in `METHODS`; `auto` takes a provably optimal closed form where one exists.
        n: number of classes, at least 2.
        d: dimension of the output space, at least 1.
        seed: of the random start, where there is one.
        steps: of an iterative method; None for its default. Closed forms have no steps.

    Raises:
        RepulseError: if the method is unknown, or cannot place `n` points in `d` dimensions.
    """
    if n < 2:
        raise RepulseError(f"a classifier needs at least 2 classes, got {n}")
    if d < 1:
        raise RepulseError(f"prototypes need at least 1 dimension, got {d}")
    if steps is not None and steps < 1:
        raise RepulseError(f"steps must be at least 1, got {steps}")
    made = METHODS[method](n, d, seed, steps)
    return replace(made, points=made.points.float(), method=method)


def impossible(method: str, n: int, d: int, limit: str) -> RepulseError:
    """The error for a method that cannot place `n` points in `d` dimensions."""
    return RepulseError(f"no {method} prototypes with n={n}, d={d}: {limit}; method 'auto' takes any n with d >= 2")
