"""The radius, in pixels, within which the answer of a prototype classifier cannot change."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from repulse.attacks import Norm
from repulse.common.errors import RepulseError
from repulse.models.readouts import margin_of


def certified_radius(
    z: Float[Tensor, "N d"],
    prototypes: Float[Tensor, "n d"],
    labels: Int64[Tensor, "N"],
    *,
    readout: str,
    norm: Norm,
    lipschitz: float,
    error: float = 0.0,
) -> Float64[Tensor, "N"]:
    """How far each image may move, in the norm, while its label stays the answer.

    `(min_j (m_j - rounding_j) - 2 error) / lipschitz`, or 0 if that is negative, with the margins m_j of the readout
    (`repulse.models.margins`): `(|z - p_j|^2 - |z - p_i|^2) / (2 |p_i - p_j|)` for L2 distances (Tsuzuku et al. 2018,
    prop. 1, for prototypes), `(|z - p_j|_inf - |z - p_i|_inf) / 2` for L-inf distances (Zhang et al., ICML 2021). If
    the image moves by less than r, the embedding moves by less than `r lipschitz`, and the other class is further away.

    An embedding as computed differs from the exact one by `error` at most, on this image and on a perturbed one, and
    the readout's own rounding is bounded too: the radius is one of the classifier as it is computed.

    Args:
        z: embeddings, as the model computes them.
        prototypes: n points.
        labels: the classes to certify: those of the images, or what the model says.
        readout: the rule by which the model takes the class; it must have a margin in the norm.
        norm: `linf` or `l2`, of pixels and of embeddings.
        lipschitz: Lipschitz constant from image to embedding in this norm, verified; > 0.
        error: how far a computed embedding may be from the exact one, in the norm.

    Returns:
        Radii in pixels, in double precision; 0 where the model does not say the label, or too narrowly.

    Raises:
        RepulseError: if the readout has no margin in the norm, the constant is not positive and finite, or the error is
            negative.
    """
    if not 0 < lipschitz < float("inf"):
        raise RepulseError(f"the Lipschitz constant must be positive and finite, got {lipschitz}")
    if not error >= 0:
        raise RepulseError(f"the error of an embedding cannot be negative, got {error}")
    margin = margin_of(readout, norm)
    epsilon = torch.finfo(torch.promote_types(z.dtype, torch.float32)).eps
    z, prototypes = z.detach().double(), prototypes.detach().double()
    margins = margin.distances(z, prototypes, labels)
    certain = (margins - margin.rounding(z, prototypes, labels, margins, epsilon)).amin(1) - 2 * error
    return certain.clamp_min(0).nan_to_num(nan=0.0) / lipschitz
