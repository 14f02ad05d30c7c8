"""Hyperspherical prototypes: every class pushes the one that is nearest to it in angle."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.seeding import generator
from repulse.prototypes.methods import METHODS, impossible
from repulse.prototypes.prototypes import Prototypes

DEFAULT_STEPS = 1000
LEARNING_RATE = 0.1
MOMENTUM = 0.9

# One block of cosines, rows x n, stays below this many numbers.
_BLOCK_NUMBERS = 8_000_000


@METHODS.register("hyperspherical")
def hyperspherical(n: int, d: int, seed: int, steps: int | None) -> Prototypes:
    """Descend the mean over classes of the largest cosine to another prototype (Mettes, van der Pol & Snoek 2019).

    The source's objective, without its semantic priors: start from random directions, SGD with learning rate 0.1 and
    momentum 0.9, 1,000 steps by default, back to norm 1 after each. The published script makes a new SGD in every step,
    so that its momentum does nothing; ours keeps it, as the paper says.

    Raises:
        RepulseError: if `d = 1` and `n > 2`.
    """
    if d == 1 and n > 2:
        raise impossible("hyperspherical", n, d, "a line has two directions")
    taken = DEFAULT_STEPS if steps is None else steps
    points = torch.nn.functional.normalize(torch.randn(n, d, generator=generator(seed, "hyperspherical")), dim=1)
    velocity = torch.zeros_like(points)
    for _ in range(taken):
        # PyTorch's SGD, written out: the gradient of a largest cosine is one row, so no graph is needed.
        velocity = MOMENTUM * velocity + cosine_crowding(points)
        points = torch.nn.functional.normalize(points - LEARNING_RATE * velocity, dim=1)
    return Prototypes(points, "cosine", seed=seed, steps=taken)


def crowding(points: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The mean over points of the largest cosine to another one, in [-1, 1]; differentiable."""
    unit = torch.nn.functional.normalize(points, dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T).masked_fill(own, -2.0).amax(1).mean()


def cosine_crowding(points: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The gradient of `mean_i max_{j != i} p_i . p_j` at unit vectors: each is pushed by those it is nearest to."""
    n = len(points)
    rows = max(1, _BLOCK_NUMBERS // n)
    nearest = []
    for start in range(0, n, rows):
        cosines = points[start : start + rows] @ points.T
        cosines.diagonal(start).fill_(-2.0)
        nearest.append(cosines.argmax(1))
    index = torch.cat(nearest)
    return points[index].index_add(0, index, points) / n
