"""The method to use when in doubt: a provably optimal closed form, or else the best of what is there."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from repulse.common.errors import RepulseError
from repulse.prototypes.bounds import angle_bound
from repulse.prototypes.closed_form import orthoplex, polygon, simplex
from repulse.prototypes.kerdock import kerdock, kerdock_dimension
from repulse.prototypes.methods import METHODS
from repulse.prototypes.prototypes import Prototypes
from repulse.prototypes.repulsion_sphere import repulsive_sphere
from repulse.prototypes.separation import smallest_angle

CLOSE_ENOUGH = 0.5
"""Degrees: a closed form that is nearer than this to the upper bound is taken without a search."""


@METHODS.register("auto")
def auto(n: int, d: int, seed: int, steps: int | None) -> Prototypes:
    """Points on the sphere with a smallest angle as large as is known here; the provenance says which and why.

    `simplex` for `n <= d + 1`, `orthoplex` for `n <= 2 d`, `polygon` for `d = 2`: these are optimal. Otherwise the
    better of a subset of `kerdock` (in the largest power of 4 dimensions that `d` holds, the other coordinates zero)
    and `repulsive-sphere` with `seed` and `steps`; the search is left out where it could gain less than half a degree.

    Raises:
        RepulseError: if `d = 1` and `n > 2`.
    """
    if n <= d + 1:
        return Prototypes(simplex(n, d), "cosine", provenance=_choice("simplex", "optimal for n <= d + 1"))
    if d == 1:
        raise RepulseError(f"no {n} directions in d=1: a line has only two; use d >= 2")
    if n <= 2 * d:
        return Prototypes(orthoplex(n, d), "cosine", provenance=_choice("orthoplex", "optimal for d + 1 < n <= 2 d"))
    if d == 2:
        return Prototypes(polygon(n, d), "cosine", provenance=_choice("polygon", "optimal for d = 2"))
    held = kerdock_dimension(d)
    bound = angle_bound(n, d).value
    closed, angle = None, 0.0
    if n <= held * held + 2 * held:
        closed = torch.nn.functional.pad(kerdock(n, held), (0, d - held))
        angle = math.degrees(math.acos(held**-0.5))
        why = f"{angle:.3f} degrees of at most {bound:.3f}"
        if bound - angle < CLOSE_ENOUGH:
            return Prototypes(closed, "cosine", provenance=_choice("kerdock", why))
    searched = repulsive_sphere(n, d, seed, steps)
    reached = smallest_angle(searched.points)
    if closed is not None and angle >= reached:
        why = f"{angle:.3f} degrees of at most {bound:.3f}; repulsive-sphere reached {reached:.3f}"
        return Prototypes(closed, "cosine", "kerdock", seed, searched.steps, _choice("kerdock", why))
    why = f"{reached:.3f} degrees of at most {bound:.3f}"
    if closed is not None:
        why += f"; kerdock has {angle:.3f}"
    return replace(searched, provenance=_choice("repulsive-sphere", why))


def _choice(method: str, why: str) -> dict[str, str]:
    return {"chosen": method, "because": why}
