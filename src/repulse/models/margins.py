"""How far an embedding is from being another class: the distance to the plane between two prototypes."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.errors import RepulseError

PLANAR = ("linear", "dot", "cosine", "l2")
"""Readouts whose classes are divided by planes."""


def plane_margins(
    z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"], labels: Int64[Tensor, "N"], readout: str = "l2"
) -> Float[Tensor, "N n"]:
    """The signed L2 distance of each embedding to the plane where another class's logit equals its own label's.

    With i the label and j the other class:

    - `l2`: `(|z - p_j|^2 - |z - p_i|^2) / (2 |p_i - p_j|)`, the distance to the plane halfway between the prototypes;
    - `linear`: `(z · p_i - z · p_j) / |p_i - p_j|`; so for `dot` too, which divides all logits by one positive number;
    - `cosine`: the same with prototypes of norm 1, for its order of classes is that of `z · p_j / |p_j|`.

    For prototypes of equal norm all are one. Positive: the label wins against j. The label's own column holds infinity.

    Raises:
        RepulseError: if the readout divides its classes by something else than planes.
    """
    if readout not in PLANAR:
        raise RepulseError(f"readout {readout!r} has no margin in L2; use one of {', '.join(PLANAR)}")
    points = F.normalize(prototypes, dim=1) if readout == "cosine" else prototypes
    scores = z @ points.T
    if readout == "l2":
        scores = scores - points.square().sum(1) / 2
    difference = scores.gather(1, labels.unsqueeze(1)) - scores
    apart = (points[labels].unsqueeze(1) - points).norm(dim=2)
    own = F.one_hot(labels, len(points)).bool()
    margins: Tensor = (difference / apart.masked_fill(own, 1.0)).masked_fill(own, float("inf"))
    return margins
