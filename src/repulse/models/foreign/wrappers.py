"""Modules around somebody else's model: normalisation and units of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.common.errors import RepulseError


class Bounded(nn.Module):
    """A model of features that each have bounds of their own, as one of features in [0, 1].

    The model sees `low + x * (high - low)`, so that eps counts in shares of each feature's range: a ball that means the
    same for years and for dollars.

    Args:
        inner: maps features in their own units to logits.
        low: least value of each feature, in the shape of one example, or a number for all.
        high: greatest value of each; above `low`.

    Raises:
        RepulseError: if a range is empty or not finite.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        inner: nn.Module,
        low: Tensor | Sequence[int | float] | float,
        high: Tensor | Sequence[int | float] | float,
    ):
        super().__init__()
        least, most = torch.as_tensor(low).float(), torch.as_tensor(high).float()
        if not bool((torch.isfinite(least) & torch.isfinite(most) & (least < most)).all()):
            raise RepulseError("every feature needs a finite range: low below high")
        self.inner = inner
        self.register_buffer("low", least)
        self.register_buffer("high", most)

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """The logits of features in [0, 1]."""
        logits: Tensor = self.inner(self.low + x * (self.high - self.low))
        return logits

    def scaled(self, features: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
        """Features in their own units as what this model takes."""
        return (features - self.low) / (self.high - self.low)


class Normalised(nn.Module):
    """A model that wants normalised images, as one that takes pixels: `inner((x - mean) / std)`.

    Args:
        inner: maps normalised images to logits.
        mean: per channel, in the units of the pixels; one value serves all channels.
        std: per channel, > 0; one value serves all channels.

    Raises:
        RepulseError: if std is not positive; on a call, if images have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, mean: Sequence[int | float], std: Sequence[int | float]) -> None:
        super().__init__()
        if not len(mean) or not len(std):
            raise RepulseError("mean and std need at least one value each")
        if not all(value > 0 for value in std):
            raise RepulseError(f"std must be positive in every channel, got {', '.join(f'{v:g}' for v in std)}")
        self.inner = inner
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]))
        self.register_buffer("std", torch.tensor([float(value) for value in std]))

    def forward(self, x: Float[Tensor, "N C *shape"]) -> Float[Tensor, "N *outputs"]:
        """Images in [0, 1] to logits."""
        logits: Tensor = self.inner((x - self._fitted(self.mean, x, "mean")) / self._fitted(self.std, x, "std"))
        return logits

    def _fitted(self, values: Tensor, x: Tensor, what: str) -> Tensor:
        # Broadcasting would turn a grey image into a colour one without a word.
        if len(values) not in (1, x.shape[1]):
            raise RepulseError(f"{what} has {len(values)} values, but the images have {x.shape[1]} channels")
        return values.to(x.dtype).view(1, -1, *(1 for _ in x.shape[2:]))
