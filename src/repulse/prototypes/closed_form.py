"""Prototypes that are written down, not searched for.

Every function returns float32 points of shape `(n, d)`. Where a construction needs fewer than `d` dimensions, the
other coordinates are zero.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy.linalg import helmert
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.seeding import generator
from repulse.prototypes.methods import METHODS, closed_form, impossible
from repulse.prototypes.prototypes import Prototypes

MAX_MAHALANOBIS_NORM = 10.0
"""Norm of the max-Mahalanobis centres: `C_MM = 10`, as in the experiments of Pang et al. (ICLR 2020)."""


@closed_form("simplex", "cosine")
def simplex(n: int, d: int) -> Float[Tensor, "n d"]:
    """The regular simplex: unit vectors with all pairwise cosines `-1/(n-1)`, the least possible (Rankin 1955).

    Rows of an orthonormal (Helmert) basis of the space orthogonal to `(1, ..., 1)`, scaled to norm 1.

    Raises:
        RepulseError: if `n > d + 1`.
    """
    if n > d + 1:
        raise impossible("simplex", n, d, f"it has at most d + 1 = {d + 1} points")
    return _padded(torch.from_numpy(helmert(n).T * math.sqrt(n / (n - 1))), d)


@closed_form("orthoplex", "cosine")
def orthoplex(n: int, d: int) -> Float[Tensor, "n d"]:
    """The cross-polytope: `e_1, ..., e_d`, then `-e_1, -e_2, ...`; cosines 0 and -1.

    Its smallest angle, 90 degrees, is the largest possible for `d + 1 < n <= 2 d` (Rankin 1955).

    Raises:
        RepulseError: if `n > 2 d`.
    """
    if n > 2 * d:
        raise impossible("orthoplex", n, d, f"it has at most 2 d = {2 * d} points")
    index = torch.arange(n)
    points = torch.zeros(n, d)
    points[index, index % d] = torch.where(index < d, 1.0, -1.0)
    return points


@closed_form("one-hot", "cosine")
def one_hot(n: int, d: int) -> Float[Tensor, "n d"]:
    """The first `n` unit vectors, which is what softmax classifiers aim at.

    Raises:
        RepulseError: if `n > d`.
    """
    if n > d:
        raise impossible("one-hot", n, d, f"it has at most d = {d} points")
    return torch.eye(n, d)


@closed_form("polygon", "cosine")
def polygon(n: int, d: int) -> Float[Tensor, "n d"]:
    """The regular polygon in the plane of the first two coordinates: smallest angle `360 / n` degrees.

    Raises:
        RepulseError: if `d < 2`.
    """
    if d < 2:
        raise impossible("polygon", n, d, "it needs a plane, d >= 2")
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return _padded(torch.stack([angle.cos(), angle.sin()], dim=1), d)


@closed_form("max-mahalanobis", "l2")
def max_mahalanobis(n: int, d: int) -> Float[Tensor, "n d"]:
    """The centres of Pang et al. (ICML 2018, algorithm 1), with norm `C_MM = 10` (ICLR 2020): for use with L2 distance.

    The same simplex as `simplex`, up to rotation, built one coordinate after the other.

    Raises:
        RepulseError: if `n > d + 1`.
    """
    if n > d + 1:
        raise impossible("max-mahalanobis", n, d, f"it has at most d + 1 = {d + 1} points")
    centres = torch.zeros(n, n, dtype=torch.float64)
    centres[0, 0] = 1.0
    for i in range(n - 1):
        # Column i of all later centres at once; the paper's loop over rows fills the same numbers.
        product = centres[i + 1 :, :i] @ centres[i, :i]
        centres[i + 1 :, i] = -(1 / (n - 1) + product) / centres[i, i]
        # Rounding can leave the last centre's remainder, exactly zero, a little below it.
        centres[i + 1, i + 1] = (1 - centres[i + 1, : i + 1].square().sum()).clamp(min=0).sqrt()
    return _padded(MAX_MAHALANOBIS_NORM * centres[:, : n - 1], d)


def random(n: int, d: int, seed: int) -> Float[Tensor, "n d"]:
    """Points drawn independently and uniformly from the unit sphere: the start of every search, and its measure."""
    points = torch.randn(n, d, dtype=torch.float64, generator=generator(seed, "prototypes", "random"))
    return torch.nn.functional.normalize(points, dim=1).float()


@METHODS.register("random")
def _random(n: int, d: int, seed: int, steps: int | None) -> Prototypes:
    if steps is not None:
        raise RepulseError(f"method 'random' takes no steps, got steps={steps}: leave them out")
    return Prototypes(random(n, d, seed), "cosine", seed=seed)


def _padded(points: Float[Tensor, "n k"], d: int) -> Float[Tensor, "n d"]:
    return torch.nn.functional.pad(points, (0, d - points.shape[1])).float()
