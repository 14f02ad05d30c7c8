"""Certified L2 radii of classifiers whose embedding cannot move faster than the image."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.models import PrototypeClassifier
from repulse.models.lipschitz import frozen
from repulse.models.margins import plane_margins

ERROR_FACTOR = 4
"""How much larger than the error seen on clean images the error of an embedding may be on perturbed ones."""

# Relative error of one rounding to single precision.
_UNIT = 2.0**-24


def l2_radius(
    z: Float[Tensor, "N d"],
    prototypes: Float[Tensor, "n d"],
    labels: Int64[Tensor, "N"],
    *,
    readout: str,
    lipschitz: float,
    error: float = 0.0,
) -> Float64[Tensor, "N"]:
    """The L2 radius around each image inside which the classifier keeps to the label.

    `(min_j m_j - 2 error - rounding) / lipschitz`, or 0 if that is negative, with the margins m_j of
    `repulse.models.margins.plane_margins`: for readout `l2`, `(|z - p_j|^2 - |z - p_i|^2) / (2 |p_i - p_j|)` (Tsuzuku
    et al. 2018, prop. 1, for prototypes). The image moves by less than r, so the embedding by less than r * lipschitz,
    and the plane is further away.

    In single precision the network's embedding differs from the exact one, on this image and on a perturbed one by
    `error` at most. The readout's own rounding, on an embedding at most m_j longer than z, is bounded here: a logit is
    off by at most `(d + 8) 2^-24 (|z| + m_j + |p|)^2` (l2) or `(d + 8) 2^-24 (|z| + m_j) |p|` (others; Higham 2002,
    section 3.1, with the division by the temperature and by norms), so the plane by that over `|p_i - p_j|`, twice for
    the others.

    Args:
        z: embeddings, as the model computes them.
        prototypes: n points.
        labels: the classes to certify: those of the images, or what the model says.
        readout: `linear`, `dot`, `cosine` or `l2`; the rule by which the model takes the class.
        lipschitz: L2 Lipschitz constant from image to embedding, verified (`lipschitz_bound(...).constant`); > 0.
        error: how far an embedding may be from the exact one, in L2; see `embedding_error`.

    Returns:
        Radii in pixels, in double precision; 0 where the model does not say the label, or too narrowly.

    Raises:
        RepulseError: if the readout's classes are not divided by planes, the constant is not positive and finite, or
            the error is negative.
    """
    if not 0 < lipschitz < float("inf"):
        raise RepulseError(f"the Lipschitz constant must be positive and finite, got {lipschitz}")
    if not error >= 0:
        raise RepulseError(f"the error of an embedding cannot be negative, got {error}")
    z, points = z.detach().double(), prototypes.detach().double()
    margins = plane_margins(z, points, labels, readout)
    if readout == "cosine":
        points = torch.nn.functional.normalize(points, dim=1)
    apart = (points[labels].unsqueeze(1) - points).norm(dim=2)
    reach = z.norm(dim=1, keepdim=True) + margins.abs()
    longest = points.norm(dim=1).max()
    rounding = (points.shape[1] + 8) * _UNIT * ((reach + longest).square() if readout == "l2" else 2 * reach * longest)
    safe = torch.where(margins.isinf(), margins, margins - rounding / apart)
    return (safe.amin(1) - 2 * error).clamp_min(0).nan_to_num(nan=0.0) / lipschitz


def in_double(model: PrototypeClassifier) -> PrototypeClassifier:
    """A copy of a classifier with plain layers, in double precision."""
    return cast(PrototypeClassifier, frozen(model)).double()


@torch.inference_mode()
def embedding_error(
    model: PrototypeClassifier, x: Float[Tensor, "N C H W"], exact: PrototypeClassifier | None = None
) -> float:
    """How far single precision may take an embedding from the exact one, in L2: measured, with a reserve.

    Four times the largest distance, over these images, between the embedding in single and in double precision. It is
    a measurement and not a bound: a perturbed image differs little from a clean one, so its rounding is of the same
    size, and the factor covers the rest. The worst case that a rounding analysis would allow is larger
    by far. The error of double precision is nought beside it.

    Args:
        model: in evaluation mode.
        x: images in [0, 1]; some hundred are enough.
        exact: what `in_double(model)` gives, for callers with many batches; None: made here.
    """
    exact = in_double(model) if exact is None else exact
    z, truth = model.embed(x), exact.embed(x.double())
    return ERROR_FACTOR * float((z.double() - truth).norm(dim=1).max())
