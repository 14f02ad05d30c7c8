"""Plain functions as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from repulse.common.errors import RepulseError, with_article


class Function(nn.Module):
    """A plain function as a module.

    Args:
        function: maps a batch of images to logits.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """What the function answers."""
        return self.function(x)


def as_module(model: object) -> nn.Module:
    """A module as it is, and a function of a batch of images as one.

    Raises:
        RepulseError: if it cannot be called.
    """
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise RepulseError(f"a model is a module or a function from images to logits, got {with_article(model)}")
    return Function(model)
