"""Repulsion on the sphere: the smallest pairwise angle as large as possible, for any `n` and `d`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.seeding import generator
from repulse.prototypes.closed_form import orthoplex, random
from repulse.prototypes.methods import METHODS, impossible
from repulse.prototypes.prototypes import Prototypes

# Tiny problems have poor local optima and cost nothing, so they start up to 16 times; from about 500 points on, once.
_STARTS = 16
_BATCH_PAIRS = 240_000
# One block of cosines stays below this many numbers (32 MB): memory grows with n d, not with n^2.
_BLOCK_NUMBERS = 8_000_000
# Default steps: as many as fit this many floating-point operations in the two matrix products, within these limits.
_OPERATIONS = 5e13
_FEWEST_STEPS, _MOST_STEPS = 60, 1500

_MOMENTUM = 0.9
_STEP = 2.0
_LONGEST_STEP = 4.0
_GROWTH = 1.025
_SHARPEST = 1e5


@METHODS.register("repulsive-sphere")
def repulsive_sphere(n: int, d: int, seed: int, steps: int | None) -> Prototypes:
    """Make the largest pairwise cosine small by descent on its smooth upper bound, ever sharper.

    Minimises `log(sum over pairs of exp(beta cos)) / beta`, which exceeds the largest cosine by at most
    `2 log(n) / beta`, by gradient descent with momentum along the sphere, while `beta` grows by a constant factor per
    step. The best points seen are returned, so the result is never worse than the `random` prototypes of the same
    seed; nor than the orthoplex, where `n <= 2 d`.

    Small problems start several times. For even `n` every other start is antipodal, which descent preserves: the best
    codes known for many sizes (the roots of D4, E6, E7 and E8 among them) are.

    Raises:
        RepulseError: if `d = 1` and `n > 2`.
    """
    if d == 1 and n > 2:
        raise impossible("repulsive-sphere", n, d, "a line has two directions")
    taken = steps if steps is not None else default_steps(n, d)
    starts = max(1, min(_STARTS, _BATCH_PAIRS // n**2))
    found, cosines = _descend(_starts(n, d, seed, starts), taken)
    best = int(cosines.argmin())
    points, provenance = found[best], {"starts": str(starts)}
    if n <= 2 * d and cosines[best] > 0:
        points, provenance = orthoplex(n, d), {"starts": str(starts), "result": "orthoplex, better than the search's"}
    return Prototypes(points, "cosine", seed=seed, steps=taken, provenance=provenance)


def default_steps(n: int, d: int) -> int:
    """How many steps `repulsive-sphere` takes if not told."""
    return int(min(_MOST_STEPS, max(_FEWEST_STEPS, _OPERATIONS / (4 * n**2 * d))))


def _starts(n: int, d: int, seed: int, count: int) -> Float[Tensor, "b n d"]:
    points = [random(n, d, seed)]
    for number in range(1, count):
        new = torch.randn(n, d, generator=generator(seed, "prototypes", "start", number))
        if n % 2 == 0 and number % 2 == 1:
            new[n // 2 :] = -new[: n // 2]
        points.append(torch.nn.functional.normalize(new, dim=1))
    return torch.stack(points)


def _descend(points: Float[Tensor, "b n d"], steps: int) -> tuple[Float[Tensor, "b n d"], Float[Tensor, " b"]]:
    """The best points on the way, and their largest cosines, for several starts side by side."""
    d = points.shape[2]
    # 1/beta is the scale of cosines that matter. Random cosines spread like 1/sqrt(d): begin by seeing most pairs.
    first = 2 * math.sqrt(d)
    last = min(_SHARPEST, first * max(20.0, _GROWTH**steps))
    velocity = torch.zeros_like(points)
    largest = _largest_cosine(points)
    best, best_points = largest, points.clone()
    for step in range(steps):
        beta = first * (last / first) ** (step / max(1, steps - 1))
        force, largest = _force(points, beta, largest)
        _keep_better(best, best_points, largest, points)
        force -= (force * points).sum(2, keepdim=True) * points
        # Forces have no natural scale (they vanish as a code becomes rigid): only their direction is used.
        force /= force.square().sum(2).mean(1).sqrt().clamp_min(1e-30)[:, None, None]
        velocity.mul_(_MOMENTUM).add_(force, alpha=1 - _MOMENTUM)
        move = velocity / (1 - _MOMENTUM ** (step + 1))
        # While few pairs are close, their points carry all the force; they must not fly past their neighbours.
        move *= (_LONGEST_STEP / move.norm(dim=2, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
        points = torch.nn.functional.normalize(points - (_STEP / beta) * move, dim=2)
        velocity -= (velocity * points).sum(2, keepdim=True) * points
    _keep_better(best, best_points, _largest_cosine(points), points)
    return best_points, best


def _keep_better(best: Tensor, best_points: Tensor, largest: Tensor, points: Tensor) -> None:
    better = largest < best
    best[better] = largest[better]
    best_points[better] = points[better]


def _force(
    points: Float[Tensor, "b n d"], beta: float, reference: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, " b"]]:
    """The gradient of `sum over pairs of exp(beta (cos - reference))` up to a factor, and the largest cosines.

    The reference only keeps the exponentials in range; a largest cosine from one step ago serves as well.
    """
    force = torch.zeros_like(points)
    largest = torch.full_like(reference, -1.0)
    for start, stop, cosines in _cosine_blocks(points):
        largest = torch.maximum(largest, cosines.amax((1, 2)))
        # Beyond -30 a pair does not count; without the clamp its numbers are denormal, which is slow.
        weights = cosines.sub_(reference[:, None, None]).mul_(beta).clamp_(-30, 60).exp_()
        force[:, start:stop] += weights @ points[:, start:]
        force[:, stop:] += weights[:, :, stop - start :].mT @ points[:, start:stop]
    return force, largest


def _largest_cosine(points: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
    return torch.stack([cosines.amax((1, 2)) for _, _, cosines in _cosine_blocks(points)]).amax(0)


def _cosine_blocks(points: Float[Tensor, "b n d"]) -> Iterator[tuple[int, int, Float[Tensor, "b r m"]]]:
    """Rows `start` to `stop` of the upper triangle of the cosines, with -2 in place of each point with itself."""
    b, n, _ = points.shape
    rows = max(1, min(n, _BLOCK_NUMBERS // (b * n)))
    for start in range(0, n, rows):
        stop = min(n, start + rows)
        cosines = points[:, start:stop] @ points[:, start:].mT
        cosines.diagonal(dim1=1, dim2=2).fill_(-2.0)
        yield start, stop, cosines
