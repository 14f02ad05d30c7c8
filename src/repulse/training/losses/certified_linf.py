"""Losses for certified L-inf radii: half the difference of two distances to prototypes is what can be proved.

They are made for networks that are 1-Lipschitz in L-inf (`linf-dist`). While such a network trains with a finite p, so
does its last step: distances to prototypes are p-distances with the same p.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from repulse.attacks.objectives import margin
from repulse.common.units import Number
from repulse.models.linf_distance import FIRST_P, LAST_P, LinfDistanceNet
from repulse.models.pairwise_distance import pairwise_distance
from repulse.training.loss import LOSSES, Embeddings, Head, Labels, Loss, Values

FIRST_WEIGHT, LAST_WEIGHT = 0.1, 0.0005
"""Weight of the cross-entropy at the smallest and at the largest p (their script for CIFAR-10 at 8/255)."""


@LOSSES.register("linf-hinge")
class LinfHinge(Loss):
    """`max(0, 1 - r / radius)`, where `r` is half the margin between the own and the nearest other prototype.

    The hinge loss of Zhang et al., ICML 2021, in units of its threshold. The default radius is three times 0.1, as the
    scripts of Zhang et al., ICLR 2022, ask for. The readout is `linf`, or linear with one-hot prototypes.
    """

    radius: Number = Field(0.3, gt=0, description="Certified radius to ask for, as a distance of embeddings.")

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """What the radii lack, as shares of the radius."""
        return F.relu(1 - _half_margin(_scores(z, head), y) / self.radius)


@LOSSES.register("linf-margin")
class LinfMargin(LinfHinge):
    """The hinge clipped at 1, plus a cross-entropy whose weight falls from 0.1 to 0.0005 as p rises.

    `min(1, max(0, 1 - r / radius)) + weight * CE` (Zhang et al., ICLR 2022). Clipping lets go of images that are
    out of reach; the cross-entropy teaches at first, while the large Lipschitz constant of a small p makes margins
    meaningless. The source learns a scale of the cross-entropy's logits; here it is the classifier's temperature.
    """

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The clipped hinges and the weighed cross-entropies."""
        scores = _scores(z, head)
        hinge = (1 - _half_margin(scores, y) / self.radius).clamp(0, 1)
        temperature = getattr(head, "temperature", 1.0)
        return hinge + _weight(_p(head)) * F.cross_entropy(scores / temperature, y, reduction="none")


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
