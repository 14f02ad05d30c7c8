"""Models that throw dice: noticed, and measured in expectation."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.attacks.attack import attackable

# Two calls of an honest model on a GPU may differ in the last bits; relative to the spread of the logits.
ROUNDING = 1e-4


def is_random(model: nn.Module, x: Float[Tensor, "N *shape"]) -> bool:
    """Whether the model, in evaluation mode, answers the same question in two ways, by more than rounding."""
    with attackable(model), torch.inference_mode():
        first, second = model(x), model(x)
    spread = (first.amax() - first.amin()).clamp_min(1e-12)
    return bool((first - second).abs().amax() > ROUNDING * spread)


class Expected(nn.Module):
    """The mean of a random model's answers over several draws: expectation over transformation (Athalye et al. 2018).

    Attacks on it follow the mean gradient, and an image counts as fooled where the mean logits name another class.

    Args:
        model: maps images to logits, differently at each call.
        draws: calls per answer, at least 1; each costs a pass.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """Mean logits."""
        total: Tensor = self.model(x)
        for _ in range(self.draws - 1):
            total = total + self.model(x)
        return total / self.draws


class ExpectedEmbedding(Expected):
    """The same for models with an embedding, whose mean is what is classified."""

    def embed(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N d"]:
        """Mean embedding."""
        model: Any = self.model
        total: Tensor = model.embed(x)
        for _ in range(self.draws - 1):
            total = total + model.embed(x)
        return total / self.draws

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""
        model: Any = self.model
        logits: Tensor = model.classify(z)
        return logits

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """The logits of the mean embedding."""
        return self.classify(self.embed(x))


def in_expectation(model: nn.Module, draws: int) -> Expected:
    """The model averaged over draws, with `embed` and `classify` if it has them."""
    has_embedding = callable(getattr(model, "embed", None)) and callable(getattr(model, "classify", None))
    return (ExpectedEmbedding if has_embedding else Expected)(model, draws)
