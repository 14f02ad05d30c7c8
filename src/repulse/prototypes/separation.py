"""How far apart prototypes are, beside the best that is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.prototypes.bounds import (
    Bound,
    angle_bound,
    coherence_bound,
    frame_potential_bound,
    l2_bound,
    linf_bound,
    mean_l2_bound,
    mean_linf_bound,
)

# One block of pairs stays below this many numbers (64 MB in double precision).
_BLOCK_NUMBERS = 8_000_000
# Coherence of points in single precision that are orthogonal but for rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Measure:
    """One measure of separation.

    Args:
        name: what a table calls it.
        value: measured.
        bound: the best possible for `(n, d)`, or the best known limit to it.
        ratio: the share of the bound that is reached: 1 is optimal, whether large values are good or small ones.
        source: who proved the bound.
    """

    name: str
    value: float
    bound: float | None
    ratio: float | None
    source: str


@dataclass(frozen=True)
class Separation:
    """The separation of `n` prototypes in `d` dimensions. No measure depends on the scale of the points.

    L-inf distances are those of the points divided by their largest absolute coordinate (the box `[-1, 1]^d`), L2
    distances those of the points divided by their largest norm (the unit ball). Angles are in degrees. The coherence is
    the largest absolute cosine, the frame potential the sum of squared cosines over all `n^2` ordered pairs.
    """

    n: int
    d: int
    smallest_angle: Measure
    coherence: Measure
    frame_potential: Measure
    smallest_l2: Measure
    mean_l2: Measure
    smallest_linf: Measure
    mean_linf: Measure

    def measures(self) -> tuple[Measure, ...]:
        """All measures, in the order of a table."""
        return (
            self.smallest_angle,
            self.coherence,
            self.frame_potential,
            self.smallest_l2,
            self.mean_l2,
            self.smallest_linf,
            self.mean_linf,
        )

    def rows(self) -> list[tuple[str, float, float | None, float | None, str]]:
        """Rows of a table: name, value, bound, ratio, source of the bound."""
        return [(each.name, each.value, each.bound, each.ratio, each.source) for each in self.measures()]


def measure(points: Float[Tensor, "n d"]) -> Separation:
    """Measure the separation of `n >= 2` points, pair by pair, in blocks: memory grows with `n d` only.

    >>> from repulse import make_prototypes
    >>> round(measure(make_prototypes("simplex", 4, 3).points).smallest_angle.value, 2)
    109.47

    Raises:
        RepulseError: if there are fewer than two points, or one is zero (it has no direction) or not finite.
    """
    n, d = points.shape
    if n < 2:
        raise RepulseError(f"separation needs at least 2 points, got {n}")
    points = points.detach().cpu().double()
    norms = points.norm(dim=1)
    if not norms.isfinite().all():
        raise RepulseError(
            f"prototype {int((~norms.isfinite()).nonzero()[0])} has a coordinate that is not a finite number"
        )
    if not norms.all():
        raise RepulseError(f"prototype {int((norms == 0).nonzero()[0])} is zero: it has no direction, so no angles")

    unit = points / norms[:, None]
    ball = points / norms.max()
    squares = ball.square().sum(1)
    box = (points / points.abs().max()).float()
    pairs = math.comb(n, 2)
    largest, coherence, potential = -1.0, 0.0, float(n)
    l2 = linf = math.inf
    l2_sum = linf_sum = 0.0
    for rows, columns, upper in _blocks(n):
        cosines = _pairs(unit[rows] @ unit[columns].T, upper)
        largest = max(largest, float(cosines.max()))
        coherence = max(coherence, float(cosines.abs().max()))
        potential += 2 * float(cosines.square_().sum())
        squared = squares[rows, None] + squares[columns] - 2 * ball[rows] @ ball[columns].T
        distances = _pairs(squared, upper).clamp_min_(0).sqrt_()
        l2, l2_sum = min(l2, float(distances.min())), l2_sum + float(distances.sum())
        distances = _pairs(torch.cdist(box[rows], box[columns], p=math.inf), upper)
        linf, linf_sum = min(linf, float(distances.min())), linf_sum + float(distances.sum(dtype=torch.float64))

    angle = math.degrees(math.acos(max(-1.0, min(1.0, largest))))
    return Separation(
        n,
        d,
        smallest_angle=_large("smallest angle, degrees", angle, angle_bound(n, d)),
        coherence=_small("coherence", coherence, coherence_bound(n, d)),
        frame_potential=_small("frame potential", potential, frame_potential_bound(n, d)),
        smallest_l2=_large("smallest L2 distance, in the unit ball", l2, l2_bound(n, d)),
        mean_l2=_large("mean L2 distance, in the unit ball", l2_sum / pairs, mean_l2_bound(n)),
        smallest_linf=_large("smallest L-inf distance, in the box [-1, 1]^d", linf, linf_bound(n, d)),
        mean_linf=_large("mean L-inf distance, in the box [-1, 1]^d", linf_sum / pairs, mean_linf_bound(n, d)),
    )


def smallest_angle(points: Float[Tensor, "n d"]) -> float:
    """The smallest pairwise angle of `n >= 2` points other than zero, in degrees; much faster than `measure`."""
    unit = torch.nn.functional.normalize(points.double(), dim=1)
    largest = max(
        float(_pairs(unit[rows] @ unit[columns].T, upper).max()) for rows, columns, upper in _blocks(len(points))
    )
    return math.degrees(math.acos(max(-1.0, min(1.0, largest))))


def _blocks(n: int) -> Iterator[tuple[slice, slice, bool]]:
    """Blocks of rows against columns that hold each pair once: whole, or (if True) above their diagonal."""
    start = 0
    while start < n - 1:
        stop = min(n, start + max(1, _BLOCK_NUMBERS // (n - start)))
        if stop - start > 1:
            yield slice(start, stop), slice(start, stop), True
        if stop < n:
            yield slice(start, stop), slice(stop, n), False
        start = stop


def _pairs(values: Float[Tensor, "r c"], upper: bool) -> Tensor:
    return values[torch.ones_like(values, dtype=torch.bool).triu(1)] if upper else values


def _large(name: str, value: float, bound: Bound) -> Measure:
    return Measure(name, value, bound.value, value / bound.value if bound.value else None, bound.source)


def _small(name: str, value: float, bound: Bound) -> Measure:
    if bound.value == 0:
        return Measure(name, value, 0.0, 1.0 if value < _ROUNDING else 0.0, bound.source)
    return Measure(name, value, bound.value, bound.value / value, bound.source)
