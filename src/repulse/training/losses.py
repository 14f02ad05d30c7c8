"""Alignment losses: how far is an embedding from the prototype of its class?

Each is one function of embeddings `z` (N, d), labels `y` (N,) and the head of the classifier, which holds the
prototypes and turns embeddings into logits; it gives one value per example. How the values of a batch become one
number is part of the loss's definition in the paper, so the registry keeps it beside the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.errors import RepulseError
from repulse.registry import Registry

Reduction = Literal["mean", "sum"]


@runtime_checkable
class Head(Protocol):
    """What a loss may ask of a classifier: its prototypes (n, d), and logits for embeddings."""

    prototypes: Tensor

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""


PerExample = Callable[[Float[Tensor, "N d"], Int64[Tensor, "N"], Head], Float[Tensor, "N"]]


@dataclass(frozen=True)
class Loss:
    """An alignment loss: a value for each example, and how a batch's values become one number."""

    per_example: PerExample
    reduction: Reduction


LOSSES: Registry[Loss] = Registry("loss")


def _loss(name: str, reduction: Reduction) -> Callable[[PerExample], PerExample]:
    def enter(function: PerExample) -> PerExample:
        LOSSES.register(name)(Loss(function, reduction))
        return function

    return enter


def _own(y: Tensor, head: Head) -> Tensor:
    return head.prototypes[y]


def _linf_distance(z: Tensor, own: Tensor) -> Tensor:
    return (z - own).abs().amax(1)


@_loss("linf", "mean")
def linf(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """L-inf distance to the own prototype, `max_k |z_k - p_yk|`, mean over the batch: the paper's loss (eq. 6)."""
    return _linf_distance(z, _own(y, head))


@_loss("linf-sum", "sum")
def linf_sum(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """L-inf distance to the own prototype, summed over the batch: the gradient grows with the batch size."""
    return _linf_distance(z, _own(y, head))


@_loss("linf-squared", "mean")
def linf_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Squared L-inf distance to the own prototype, mean over the batch: the gradient fades on arrival."""
    return _linf_distance(z, _own(y, head)).square()


@_loss("cosine", "mean")
def cosine(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """One minus the cosine between embedding and own prototype, in [0, 2], mean over the batch."""
    return 1 - F.cosine_similarity(z, _own(y, head), dim=1)


@_loss("cosine-squared", "sum")
def cosine_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Square of one minus the cosine, summed over the batch (Mettes et al. 2019, eq. 1; Serban et al. 2021)."""
    return (1 - F.cosine_similarity(z, _own(y, head), dim=1)).square()


@_loss("cosine-batch-axis", "mean")
def cosine_batch_axis(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """The cosine loss as the paper's published code computes it: along the batch axis, not the embedding's.

    Each of the d coordinates, as a vector over the batch, is compared with the same coordinate of the prototypes. That
    is not what the paper's text says, and a batch of one has no gradient; it is here so that the published results can
    be repeated. The value of the batch stands for each of its examples.
    """
    return (1 - F.cosine_similarity(z, _own(y, head), dim=0)).mean().expand(len(z))


@_loss("l2-squared", "mean")
def l2_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Squared L2 distance to the own prototype, `|z - p_y|^2`, mean over the batch."""
    return (z - _own(y, head)).square().sum(1)


@_loss("cross-entropy", "mean")
def cross_entropy(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Cross-entropy over the logits of the prototypes; the classifier's temperature is the loss's temperature."""
    return F.cross_entropy(head.classify(z), y, reduction="none")


def make_loss(name: str, *, label_smoothing: float = 0.0) -> Loss:
    """The loss called `name`.

    Args:
        name: a name in `LOSSES`.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1); for `cross-entropy` only.

    Raises:
        RepulseError: if the name is unknown, or label smoothing is asked of a loss that has none, or is out of range.
    """
    loss = LOSSES[name]
    if not 0 <= label_smoothing < 1:
        raise RepulseError(f"label smoothing must lie in [0, 1), got {label_smoothing}")
    if label_smoothing == 0:
        return loss
    if name != "cross-entropy":
        raise RepulseError(f"loss {name!r} has no label smoothing; set it to 0 or use 'cross-entropy'")

    def smoothed(z: Tensor, y: Tensor, head: Head) -> Tensor:
        return F.cross_entropy(head.classify(z), y, reduction="none", label_smoothing=label_smoothing)

    return Loss(smoothed, loss.reduction)
