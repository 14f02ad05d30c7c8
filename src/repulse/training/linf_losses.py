"""Losses for certified L-inf radii: half the difference of two distances to prototypes is what can be proved.

They are made for networks that are 1-Lipschitz in L-inf (`linf-dist`). While such a network trains with a finite p, so
does its last step: distances to prototypes are p-distances with the same p.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.attacks.objectives import margin
from repulse.common.errors import RepulseError
from repulse.models.linf_distance import FIRST_P, LAST_P, LinfDistanceNet
from repulse.models.pairwise_distance import pairwise_distance
from repulse.training.losses import Head, enter_loss

RADIUS = 0.3
"""Asked-for radius where none is given: three times 0.1, as the scripts of Zhang et al., ICLR 2022, ask for."""

FIRST_WEIGHT, LAST_WEIGHT = 0.1, 0.0005
"""Weight of the cross-entropy at the smallest and at the largest p (their script for CIFAR-10 at 8/255)."""


@enter_loss("linf-hinge", "mean")
def linf_hinge(
    z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head, *, radius: float = RADIUS
) -> Float[Tensor, "N"]:
    """`max(0, 1 - r / radius)`, where `r` is half the margin between the own and the nearest other prototype.

    The hinge loss of Zhang et al., ICML 2021, in units of its threshold.

    Args:
        z: embeddings.
        y: labels.
        head: the classifier; its readout is `linf`, or linear with one-hot prototypes.
        radius: that is asked for, as a distance of embeddings; > 0.

    Raises:
        RepulseError: if the radius is not positive.
    """
    _check(radius)
    return F.relu(1 - _half_margin(_scores(z, head), y) / radius)


@enter_loss("linf-margin", "mean")
def linf_margin(
    z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head, *, radius: float = RADIUS
) -> Float[Tensor, "N"]:
    """The hinge clipped at 1, plus a cross-entropy whose weight falls from 0.1 to 0.0005 as p rises.

    `min(1, max(0, 1 - r / radius)) + weight * CE` (Zhang et al., ICLR 2022). Clipping lets go of images that are
    out of reach; the cross-entropy teaches at first, while the large Lipschitz constant of a small p makes margins
    meaningless. The source learns a scale of the cross-entropy's logits; here it is the classifier's temperature.

    Args:
        z: embeddings.
        y: labels.
        head: the classifier; its readout is `linf`, or linear with one-hot prototypes.
        radius: that is asked for, as a distance of embeddings; > 0.

    Raises:
        RepulseError: if the radius is not positive.
    """
    _check(radius)
    scores = _scores(z, head)
    hinge = (1 - _half_margin(scores, y) / radius).clamp(0, 1)
    temperature = getattr(head, "temperature", 1.0)
    return hinge + _weight(_p(head)) * F.cross_entropy(scores / temperature, y, reduction="none")


def _check(radius: float) -> None:
    if not radius > 0:
        raise RepulseError(f"the radius that a loss asks for must be positive, got {radius}")


def _scores(z: Tensor, head: Head) -> Tensor:
    """Minus the p-distances to the prototypes; or the embedding's own logits."""
    if getattr(head, "readout", "linf") == "linf":
        return -pairwise_distance(z, head.prototypes.to(z.dtype), _p(head))
    return head.classify(z) * getattr(head, "temperature", 1.0)


def _p(head: Head) -> float:
    """The p of the classifier's network in training; infinite for any other network."""
    backbone = getattr(head, "backbone", None)
    return backbone.p if isinstance(backbone, LinfDistanceNet) and backbone.training else math.inf


def _weight(p: float) -> float:
    risen = min(1.0, math.log(p / FIRST_P) / math.log(LAST_P / FIRST_P))
    return float(FIRST_WEIGHT * (LAST_WEIGHT / FIRST_WEIGHT) ** risen)


def _half_margin(scores: Tensor, y: Tensor) -> Tensor:
    return -margin(scores, y) / 2
