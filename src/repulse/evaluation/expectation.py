"""Stochastic models: noticed, and measured in expectation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.attacks.attack import attackable

# Two calls of an honest model on a GPU may differ in the last bits; relative to the spread of the logits.
ROUNDING = 1e-4


def is_random(model: nn.Module, x: Float[Tensor, "N *shape"]) -> bool:
    """Whether the model, in evaluation mode, answers the same question in two ways, by more than rounding."""
    with attackable(model), torch.no_grad():
        first, second = model(x), model(x)
    spread = (first.amax() - first.amin()).clamp_min(1e-12)
    return bool((first - second).abs().amax() > ROUNDING * spread)


class Expected(nn.Module):
    """The mean of a stochastic model's answers: expectation over transformation (Athalye et al. 2018).

    Attacks on it follow the mean gradient, and an image counts as fooled where the mean logits name another class.

    Args:
        model: maps images to logits, differently at each call.
        samples: calls per answer, at least 1; each costs a pass.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """Mean logits."""
        return self._mean(self.model, x)

    def _mean(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        # Each call gets a copy of its own: the model may work in place.
        return torch.stack([call(x.clone()) for _ in range(self.samples)]).mean(0)


class ExpectedEmbedding(Expected):
    """The same for models with an embedding, whose mean is what is classified."""

    def embed(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N d"]:
        """Mean embedding."""
        model: Any = self.model
        return self._mean(model.embed, x)

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""
        model: Any = self.model
        logits: Tensor = model.classify(z)
        return logits

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """The logits of the mean embedding."""
        return self.classify(self.embed(x))


def in_expectation(model: nn.Module, samples: int) -> Expected:
    """The model averaged over samples, with `embed` and `classify` if it has them."""
    has_embedding = callable(getattr(model, "embed", None)) and callable(getattr(model, "classify", None))
    return (ExpectedEmbedding if has_embedding else Expected)(model, samples)
