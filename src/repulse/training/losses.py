"""Alignment losses: how far is an embedding from the prototype of its class?

Each is one function of embeddings `z` (N, d), labels `y` (N,) and the head of the classifier, which holds the
prototypes and turns embeddings into logits; it gives one value per example. How the values of a batch become one
number is part of the loss's definition in the paper, so the registry keeps it beside the function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.registry import Registry

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


def enter_loss(name: str, reduction: Reduction) -> Callable[[PerExample], PerExample]:
    """Decorate a function to enter it in `LOSSES`; keyword-only arguments with defaults are its settings."""

    def enter(function: PerExample) -> PerExample:
        LOSSES.register(name)(Loss(function, reduction))
        return function

    return enter


def _own(y: Tensor, head: Head) -> Tensor:
    return head.prototypes[y]


def _linf_distance(z: Tensor, own: Tensor) -> Tensor:
    return (z - own).abs().amax(1)


@enter_loss("linf", "mean")
def linf(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """L-inf distance to the own prototype, `max_k |z_k - p_yk|`, mean over the batch: the paper's loss (eq. 6)."""
    return _linf_distance(z, _own(y, head))


@enter_loss("linf-sum", "sum")
def linf_sum(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """L-inf distance to the own prototype, summed over the batch: the gradient grows with the batch size."""
    return _linf_distance(z, _own(y, head))


@enter_loss("linf-squared", "mean")
def linf_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Squared L-inf distance to the own prototype, mean over the batch: the gradient fades on arrival."""
    return _linf_distance(z, _own(y, head)).square()


@enter_loss("cosine", "mean")
def cosine(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """One minus the cosine between embedding and own prototype, in [0, 2], mean over the batch."""
    return 1 - F.cosine_similarity(z, _own(y, head), dim=1)


@enter_loss("cosine-squared", "sum")
def cosine_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Square of one minus the cosine, summed over the batch (Mettes et al. 2019, eq. 1; Serban et al. 2021)."""
    return (1 - F.cosine_similarity(z, _own(y, head), dim=1)).square()


@enter_loss("cosine-batch-axis", "mean")
def cosine_batch_axis(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """The cosine loss as the paper's published code computes it: along the batch axis, not the embedding's.

    Each of the d coordinates, as a vector over the batch, is compared with the same coordinate of the prototypes. That
    is not what the paper's text says, and a batch of one has no gradient; it is here so that the published results can
    be repeated. The value of the batch stands for each of its examples.
    """
    return (1 - F.cosine_similarity(z, _own(y, head), dim=0)).mean().expand(len(z))


@enter_loss("l2-squared", "mean")
def l2_squared(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Squared L2 distance to the own prototype, `|z - p_y|^2`, mean over the batch."""
    return (z - _own(y, head)).square().sum(1)


@enter_loss("mmc", "mean")
def mmc(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Max-Mahalanobis centre loss, `|z - p_y|^2 / 2`, mean over the batch (Pang et al., ICLR 2020)."""
    return l2_squared(z, y, head) / 2


@enter_loss("code", "mean")
def code(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Logistic loss of each bit, `mean_k log(1 + exp(-sign(p_yk) z_k))`, mean over the batch.

    Each coordinate is a classifier of its own: binary cross-entropy of `sigmoid(z_k)` against the bit of the class's
    code word (Verma & Swami 2019, the models with logistic outputs). Prototypes are sign vectors, such as `hadamard`.
    """
    return F.softplus(-z * _own(y, head).sign()).mean(1)


@enter_loss("code-hinge", "mean")
def code_hinge(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Hinge loss of each bit, `mean_k max(0, 1 - sign(p_yk) z_k)`, mean over the batch.

    What the published script trains its models of Hadamard codes and tanh outputs with (Verma & Swami 2019).
    """
    return F.relu(1 - z * _own(y, head).sign()).mean(1)


@enter_loss("cross-entropy", "mean")
def cross_entropy(z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head) -> Float[Tensor, "N"]:
    """Cross-entropy over the logits of the prototypes; the classifier's temperature is the loss's temperature."""
    return F.cross_entropy(head.classify(z), y, reduction="none")


def with_settings(name: str, loss: Loss, settings: Mapping[str, float]) -> Loss:
    """The loss with settings in place of its defaults: the keyword-only arguments of its function.

    Raises:
        RepulseError: if the loss has no such setting; those it has are named.
    """
    own = [p.name for p in inspect.signature(loss.per_example).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in settings.keys() - set(own):
        raise RepulseError(f"loss {name!r} has no {key}; leave out loss.{key} (it has: {', '.join(own) or 'none'})")
    return replace(loss, per_example=partial(loss.per_example, **settings)) if settings else loss


def make_loss(name: str, *, label_smoothing: float = 0.0, **settings: float | None) -> Loss:
    """The loss called `name`.

    Args:
        name: a name in `LOSSES`.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1); for `cross-entropy` only.
        settings: those of losses that have some (keyword-only arguments of their functions); None is the default.

    Raises:
        RepulseError: if the name is unknown, or a setting is asked of a loss that has none, or is out of range.
    """
    loss = with_settings(name, LOSSES[name], {key: value for key, value in settings.items() if value is not None})
    if not 0 <= label_smoothing < 1:
        raise RepulseError(f"label smoothing must lie in [0, 1), got {label_smoothing}")
    if label_smoothing == 0:
        return loss
    if name != "cross-entropy":
        raise RepulseError(f"loss {name!r} has no label smoothing; set it to 0 or use 'cross-entropy'")

    def smoothed(z: Tensor, y: Tensor, head: Head) -> Tensor:
        return F.cross_entropy(head.classify(z), y, reduction="none", label_smoothing=label_smoothing)

    return Loss(smoothed, loss.reduction)
