"""Alignment losses: how far is an embedding from the prototype of its class?"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from repulse.training.loss import LOSSES, Embeddings, Head, Labels, Loss, Reduction, Values


@LOSSES.register("linf")
class Linf(Loss):
    """L-inf distance to the own prototype, `max_k |z_k - p_yk|`, mean over the batch: the paper's loss (eq. 6)."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The distances."""
        return (z - head.prototypes[y]).abs().amax(1)


@LOSSES.register("linf-sum")
class LinfSum(Linf):
    """L-inf distance to the own prototype, summed over the batch: the gradient grows with the batch size."""

    reduction: ClassVar[Reduction] = "sum"


@LOSSES.register("linf-squared")
class LinfSquared(Linf):
    """Squared L-inf distance to the own prototype, mean over the batch: the gradient fades on arrival."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The squared distances."""
        return super().per_example(z, y, head).square()


@LOSSES.register("cosine")
class Cosine(Loss):
    """One minus the cosine between embedding and own prototype, in [0, 2], mean over the batch."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The differences."""
        return 1 - _cosine(z, head.prototypes[y], 1)


@LOSSES.register("cosine-squared")
class CosineSquared(Cosine):
    """Square of one minus the cosine, summed over the batch (Mettes et al. 2019, eq. 1; Serban et al. 2021)."""

    reduction: ClassVar[Reduction] = "sum"

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The squared differences."""
        return super().per_example(z, y, head).square()


@LOSSES.register("cosine-batch-axis")
class CosineBatchAxis(Loss):
    """The cosine loss as the paper's published code computes it: along the batch axis, not the embedding's.

    Each of the d coordinates, as a vector over the batch, is compared with the same coordinate of the prototypes. That
    is not what the paper's text says, and a batch of one has no gradient; it is here so that the published results can
    be repeated. The value of the batch stands for each of its examples.
    """

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The batch's value, for each example."""
        return (1 - _cosine(z, head.prototypes[y], 0)).mean().expand(len(z))


@LOSSES.register("l2-squared")
class L2Squared(Loss):
    """Squared L2 distance to the own prototype, `|z - p_y|^2`, mean over the batch."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The squared distances."""
        return (z - head.prototypes[y]).square().sum(1)


@LOSSES.register("mmc")
class MaxMahalanobisCentre(L2Squared):
    """Max-Mahalanobis centre loss, `|z - p_y|^2 / 2`, mean over the batch (Pang et al., ICLR 2020)."""

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """Half the squared distances."""
        return super().per_example(z, y, head) / 2


@LOSSES.register("code")
class Code(Loss):
    """Logistic loss of each bit, `mean_k log(1 + exp(-sign(p_yk) z_k))`, mean over the batch.

    Each coordinate is a classifier of its own: binary cross-entropy of `sigmoid(z_k)` against the bit of the class's
    code word (Verma & Swami 2019, the models with logistic outputs). Prototypes are sign vectors, such as `hadamard`.
    """

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The mean over the bits."""
        return F.softplus(-z * head.prototypes[y].sign()).mean(1)


@LOSSES.register("code-hinge")
class CodeHinge(Loss):
    """Hinge loss of each bit, `mean_k max(0, 1 - sign(p_yk) z_k)`, mean over the batch.

    What the published script trains its models of Hadamard codes and tanh outputs with (Verma & Swami 2019).
    """

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The mean over the bits."""
        return F.relu(1 - z * head.prototypes[y].sign()).mean(1)


@LOSSES.register("cross-entropy")
class CrossEntropy(Loss):
    """Cross-entropy over the logits of the prototypes; the classifier's temperature is the loss's temperature."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The cross-entropies, in nats."""
        return F.cross_entropy(head.classify(z), y, reduction="none", label_smoothing=self.label_smoothing)


def _cosine(z: Tensor, own: Tensor, dim: int) -> Tensor:
    # In half precision the floor under a norm is zero, and a zero embedding would be no number.
    single = z if z.dtype in (torch.float32, torch.float64) else z.float()
    return F.cosine_similarity(single, own.to(single.dtype), dim=dim)
