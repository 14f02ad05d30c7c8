"""The L-inf radius within which the answer of a prototype classifier cannot change."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from repulse.common.errors import RepulseError


def linf_radius(
    z: Float[Tensor, "N d"],
    prototypes: Float[Tensor, "n d"],
    labels: Int64[Tensor, "N"],
    *,
    readout: str,
    lipschitz: float,
    error: float = 0.0,
) -> Float64[Tensor, "N"]:
    """How far in L-inf each image may be changed while its label stays the answer; in pixels of [0, 1].

    If images move by `r`, embeddings move by at most `lipschitz * r` in L-inf, and as computed by `2 error` more. So,
    with `i` the label and `j` any other class:

    - readout `linf`: `min_j (|z - p_j|_inf - |z - p_i|_inf) / 2`; each distance changes by no more than `z` does
      (Zhang et al., ICML 2021; with one-hot prototypes far out these are half margins of logits).
    - readout `linear`: `min_j z · (p_i - p_j) / |p_i - p_j|_1`, as L1 is dual to L-inf; with one-hot prototypes half
      the margin of the two largest logits.

    Of this, `2 error` and a bound on the rounding of the readout itself are taken off, and the rest is divided by
    `lipschitz`. So the radius is one of the classifier as it is computed, not of an idealised one.

    Args:
        z: embeddings as the model computes them.
        prototypes: of the n classes.
        labels: the class whose answer is certified, for each image.
        readout: `linf` or `linear`.
        lipschitz: constant of the embedding, `repulse.certification.linf_bound.LinfBound.constant`.
        error: how far a computed embedding may lie from the exact one in L-inf, `LinfBound.rounding`.

    Returns:
        Radii, at least 0; 0 where the label is not the answer, or not by more than rounding.

    Raises:
        RepulseError: if the readout is another one, or lipschitz or error is impossible.
    """
    if not lipschitz > 0 or not error >= 0:
        raise RepulseError(f"lipschitz must be positive and error at least 0, got {lipschitz} and {error}")
    check_readout(readout)
    epsilon = torch.finfo(torch.promote_types(z.dtype, torch.float32)).eps
    room, rounding = _HALF_MARGINS[readout](z.double(), prototypes.double(), labels, epsilon)
    return ((room - 2 * error - rounding) / lipschitz).clamp_min(0.0)


def check_readout(readout: str) -> None:
    """Refuse a readout whose margins have no L-inf radius.

    Raises:
        RepulseError: if so; those that have one are named.
    """
    if readout not in _HALF_MARGINS:
        raise RepulseError(f"no L-inf radius for readout {readout!r}; known: {', '.join(sorted(_HALF_MARGINS))}")


def _by_distance(z: Tensor, prototypes: Tensor, labels: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    distances = torch.cdist(z, prototypes, p=torch.inf)
    room = (_nearest_other(distances, labels) - _of(distances, labels)) / 2
    # A difference, and a division by the temperature, which must not round two logits to one: four epsilons in all, of
    # the largest distance that the label's own or another prototype can have within the radius.
    return room, 4 * epsilon * (distances.amax(1) + room.abs())


def _by_product(z: Tensor, prototypes: Tensor, labels: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    products = z @ prototypes.T
    apart = (prototypes[labels].unsqueeze(1) - prototypes).abs().sum(2)
    margins = (_of(products, labels).unsqueeze(1) - products) / apart
    room = _nearest_other(margins, labels)
    # d products and sums, and the division by the temperature.
    sizes = (z.abs() + room.abs().unsqueeze(1)) @ prototypes.abs().T
    smallest = apart.scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
    return room, 2 * (z.shape[1] + 4) * epsilon * sizes.amax(1) / smallest


_HALF_MARGINS = {"linf": _by_distance, "linear": _by_product}


def _of(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels.unsqueeze(1)).squeeze(1)


def _nearest_other(values: Tensor, labels: Tensor) -> Tensor:
    return values.scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
