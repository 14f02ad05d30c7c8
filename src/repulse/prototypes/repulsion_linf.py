"""The paper's repulsion: points that push each other apart in L-inf distance, without bound."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.seeding import generator
from repulse.prototypes.methods import METHODS
from repulse.prototypes.prototypes import Prototypes

DEFAULT_STEPS = 1000

# One block of pairwise differences, block x n x d, stays below this many numbers.
_BLOCK_NUMBERS = 16_000_000


@METHODS.register("repulsive-linf")
def repulsive_linf(n: int, d: int, seed: int, steps: int | None) -> Prototypes:
    """Ascend the sum of pairwise L-inf distances by SGD, as the paper does (Serban et al. 2021).

    Start uniform in [-1, 1], learning rate 0.01, momentum 0.9, 1,000 steps by default (the paper: 50 to 5,000). Nothing
    bounds the objective, so coordinates grow with the steps; compare with the bound after scaling into the box.
    """
    taken = DEFAULT_STEPS if steps is None else steps
    points = 2 * torch.rand(n, d, generator=generator(seed, "repulsive-linf")) - 1
    momentum = torch.zeros_like(points)
    for _ in range(taken):
        # PyTorch's SGD, written out: the gradient of a maximum is one sign, so no graph is needed.
        momentum = 0.9 * momentum + linf_repulsion(points)
        points = points + 0.01 * momentum
    return Prototypes(points, "linf", seed=seed, steps=taken)


def linf_repulsion(points: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The gradient of `sum over pairs i < j of |p_i - p_j|_inf`: each pair pushes along its widest coordinate."""
    n, d = points.shape
    gradient = torch.zeros_like(points)
    block = max(1, _BLOCK_NUMBERS // (n * d))
    for start in range(0, n, block):
        rows = points[start : start + block]
        difference = rows.unsqueeze(1) - points
        widest = difference.abs().argmax(2, keepdim=True)
        push = difference.gather(2, widest).sign().squeeze(2)
        gradient[start : start + block].scatter_add_(1, widest.squeeze(2), push)
    return gradient
