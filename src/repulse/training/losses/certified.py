"""Losses for 1-Lipschitz networks, where a margin between embedding and plane is a radius in the image.

All measure the margin `m_j` of the own class i against each other class j as the distance of the embedding to the plane
halfway between their prototypes, `(|z - p_j|^2 - |z - p_i|^2) / (2 |p_i - p_j|)`. Behind a network with Lipschitz
constant L, no change of the image shorter than `min_j m_j / L` moves the embedding to the nearest other prototype.
Prototypes of equal norm may be scaled as one likes: these margins do not change. That is also why a simplex and one-hot
corners, which are a simplex too, lead to the same training here, up to a rotation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from repulse.models.margins import plane_margins
from repulse.training.loss import LOSSES, Embeddings, Head, Labels, Loss, Values


class _MarginLoss(Loss):
    offset: float = Field(
        0.5,
        ge=0,
        description="Margin to reach, as a distance of embeddings: a radius, if the network is 1-Lipschitz in pixels.",
    )


@LOSSES.register("certified-cross-entropy")
class CertifiedCrossEntropy(_MarginLoss):
    """Cross-entropy of margins less an offset: `t log(1 + sum_j exp((offset - m_j) / t))`, mean over the batch.

    Prach & Lampert (ECCV 2022) take the offset from the own class's score, divide by a temperature t, and
    multiply the loss by it. There the scores are outputs of the network, whose differences are sqrt(2) times these
    margins, with offset sqrt(2) and temperature 1/4: here 1 and 0.18. Margins below the offset weigh about 1, those
    well above it nothing; the smaller t, the more like a hinge.
    """

    margin_temperature: float = Field(
        0.25, gt=0, description="t: how softly the margin is asked for, as a distance of embeddings."
    )

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The soft excesses."""
        margins, t = _margins(z, y, head), self.margin_temperature
        # The own class has margin infinity; its place in the sum is exp(0).
        exponents = torch.where(margins.isinf(), torch.zeros_like(margins), (self.offset - margins) / t)
        return t * exponents.logsumexp(1)


@LOSSES.register("certified-hinge")
class CertifiedHinge(_MarginLoss):
    """Hinge on the certified radius itself, `max(0, offset - min_j m_j)`, mean over the batch (Tsuzuku et al. 2018)."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """What the nearest plane lacks."""
        return F.relu(self.offset - _margins(z, y, head).amin(1))


@LOSSES.register("multi-class-hinge")
class MultiClassHinge(_MarginLoss):
    """Hinge on the margin to every other class, `mean_j max(0, offset - m_j)` (Li et al., NeurIPS 2019).

    The usual loss of networks with orthogonal layers before margins were softened. Unlike the hinge on the smallest
    margin alone it moves an image away from all other classes at once, and so begins to learn much sooner.
    """

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The mean over the other classes."""
        margins = _margins(z, y, head)
        # The own class has margin infinity, and no part in the sum.
        return F.relu(self.offset - margins).sum(1) / max(margins.shape[1] - 1, 1)


def _margins(z: Tensor, y: Tensor, head: Head) -> Tensor:
    return plane_margins(z, head.prototypes.to(z.dtype), y)
