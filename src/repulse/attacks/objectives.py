"""What an attack climbs: one value per image that rises as the model errs.

An objective takes `(model, x, y)` and returns values (N,) and logits (N, n), so that one forward pass tells both which
way to go and whether the image is fooled already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.registry import Registry

Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
EmbeddingLoss = Callable[[Tensor, Tensor], Tensor]
"""`(z (N, d), y (N,)) -> (N,)`: a training loss on embeddings, one value per example."""

OBJECTIVES: Registry[Objective] = Registry("objective")


def objective_name(objective: Callable[..., object]) -> str:
    """What an objective is called: the name under which it is registered, or else that of its function."""
    registered = next((name for name, each in OBJECTIVES.items() if each is objective), "")
    return registered or getattr(objective, "__name__", type(objective).__name__).replace("_", "-")


def uphill(values: Float[Tensor, "N"], images: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
    """The gradient of each value with respect to its image, as attacks use it: see `usable`."""
    (gradient,) = torch.autograd.grad(values.sum(), images)
    return usable(gradient)


def usable(gradient: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
    """A gradient that is not a number points nowhere; zero leaves that pixel where it is."""
    return torch.nan_to_num(gradient, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class OnLogits:
    """An objective that is a function of the logits; its name is what decides it."""

    name: str
    of_logits: Callable[[Tensor, Tensor], Tensor] = field(repr=False)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Values and logits."""
        logits: Tensor = model(x)
        return self.of_logits(logits, y), logits


def _on_logits(name: str) -> Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]]:
    def enter(of_logits: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        OBJECTIVES.register(name)(OnLogits(name, of_logits))
        return of_logits

    return enter


@_on_logits("cross-entropy")
def cross_entropy(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Cross-entropy of the true class (Goodfellow et al. 2015)."""
    return F.cross_entropy(logits, y, reduction="none")


@_on_logits("margin")
def margin(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Largest wrong logit minus the true one: positive when fooled, never saturated (Carlini & Wagner 2017, f6)."""
    own = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    wrong = logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
    return wrong - own


@_on_logits("probability-margin")
def probability_margin(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """The margin of the softmax's probabilities (Xie et al. 2024, PMA)."""
    return margin(logits.softmax(1), y)


@_on_logits("dlr")
def dlr(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Difference of logits ratio: the margin over (largest minus third-largest logit) (Croce & Hein 2020, eq. 7).

    Raises:
        RepulseError: below three classes, where it is not defined.
    """
    if logits.shape[1] < 3:
        raise RepulseError(f"the DLR objective needs at least 3 classes, got {logits.shape[1]}; use 'margin'")
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def through_embedding(loss: EmbeddingLoss) -> Objective:
    """The training loss as an objective, for models with `embed` and `classify`: the paper's attack.

    Raises:
        RepulseError: when called with a model that lacks either.
    """

    def training_loss(model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not (callable(getattr(model, "embed", None)) and callable(getattr(model, "classify", None))):
            raise RepulseError("a training loss is attacked through the model's `embed` and `classify`, which it lacks")
        z = model.embed(x)
        return loss(z, y), model.classify(z)

    return training_loss
