"""A threat of its own for every image: radii, and boxes of its own for every feature.

A box in L-inf is the unit cube in other units: `x = low + u (high - low)`. So attacks run on `u` as on any image, on a
model that knows which rows of the batch it is asked about; none of them knows of boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.threat import Norm, Threat, column
from repulse.common.errors import RepulseError


@dataclass(frozen=True, eq=False)
class ThreatPerImage:
    """All images within a radius of the clean one, where radius and range may differ by image, and by feature.

    Args:
        norm: `linf`; or `l2`, with radii of each image and one range for all.
        eps: radius of each ball, (N,), or one for all; inf: only the box counts.
        low: least values: a number, `(*shape)` for all images alike, or `(N, *shape)`.
        high: greatest values, in the same way; not below `low`, and equal where a feature may not change.

    Raises:
        RepulseError: if the norm is unknown, a radius is negative or not a number, or, on a call, shapes don't fit, an
            image lies outside its box, or a box is empty.
    """

    norm: Norm
    eps: Float[Tensor, "N"] | float = float("inf")
    low: Tensor | float = 0.0
    high: Tensor | float = 1.0

    def __post_init__(self) -> None:
        radii = torch.as_tensor(self.eps)
        if self.norm not in ("linf", "l2"):
            raise RepulseError(f"norm must be 'linf' or 'l2', got {self.norm!r}")
        if radii.ndim > 1 or bool((~(radii >= 0)).any()):
            raise RepulseError("eps must be one number, or one for each image, none of them negative")
        boxes = any(isinstance(each, Tensor) and each.ndim for each in (self.low, self.high))
        if self.norm == "l2" and (boxes or not bool(radii.isfinite().all())):
            raise RepulseError("in L2 every image has a finite radius, and all have one range; boxes are of L-inf")

    def box(self, x: Float[Tensor, "N *shape"]) -> tuple[Tensor, Tensor]:
        """The least and the greatest values of each image in L-inf, ball and range together.

        Raises:
            RepulseError: if shapes don't fit, an image lies outside its range, or a bound is not finite.
        """
        low, high = _spread(self.low, x, "low"), _spread(self.high, x, "high")
        if bool((low > high).any()):
            raise RepulseError("a box is empty: low lies above high")
        if bool(((x < low - 1e-6) | (x > high + 1e-6)).any()):
            raise RepulseError("an image lies outside its box: every clean image must be one that is allowed")
        radii = self.radii(x)
        low, high = torch.maximum(low, x - column(radii, x)), torch.minimum(high, x + column(radii, x))
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise RepulseError("a feature has no finite bound: give eps, or low and high")
        # Rounding must not put the image itself outside.
        return torch.minimum(low, x), torch.maximum(high, x)

    def radii(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N"]:
        """The radius of each image.

        Raises:
            RepulseError: if there are not as many radii as images.
        """
        radii = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device)
        if radii.ndim and len(radii) != len(x):
            raise RepulseError(f"{len(x)} images but {len(radii)} radii")
        return radii.expand(len(x))

    def groups(self, x: Float[Tensor, "N *shape"]) -> list[tuple[Threat, Int64[Tensor, "M"]]]:
        """For L2: the images of each radius, with their threat."""
        radii = self.radii(x)
        low, high = float(self.low), float(self.high)
        return [
            (Threat("l2", float(radius), low, high), (radii == radius).nonzero().flatten())
            for radius in torch.unique(radii)
        ]


UNIT = Threat("linf", 1.0)
"""What a box is in units of its own."""


class Framed(nn.Module):
    """A model of images in the units of their boxes.

    Args:
        model: maps images to logits; may have `embed` and what else attacks look for.
        low: least values of each image.
        high: greatest values.
    """

    def __init__(self, model: nn.Module, low: Float[Tensor, "N *shape"], high: Float[Tensor, "N *shape"]) -> None:
        super().__init__()
        self.inner, self._low, self._width = model, low, high - low
        self.rows = torch.arange(len(low), device=low.device)
        """Which images it is asked about; of several rounds of them, one after the other."""
        self.training = False

    def inside(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
        """Images in the units of their boxes; in the middle where a feature may not change."""
        return torch.where(self._width > 0, (x - self._low) / self._width.clamp_min(1e-38), 0.5).clamp(0, 1)

    def outside(self, u: Float[Tensor, "M *shape"]) -> Float[Tensor, "M *shape"]:
        """Images in their own units."""
        rounds = max(len(u) // max(len(self.rows), 1), 1)
        rows = self.rows.repeat(rounds)[: len(u)]
        low, width = self._low[rows], self._width[rows]
        return torch.minimum(low + u * width, low + width)

    def forward(self, u: Float[Tensor, "M *shape"]) -> Any:
        """What the model answers."""
        return self.inner(self.outside(u))

    def __getattr__(self, name: str) -> Any:
        # Attacks look for these; everything else of the model belongs to other units.
        if name in ("embed", "classify", "distances"):
            found = getattr(super().__getattr__("inner"), name)
            return self._embedding(found) if name == "embed" else found
        return super().__getattr__(name)

    def _embedding(self, embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda u: embed(self.outside(u))


def _spread(values: Tensor | float, x: Tensor, what: str) -> Tensor:
    found = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    if found.ndim and found.shape not in (x.shape, x.shape[1:]):
        raise RepulseError(
            f"{what} must be a number, or have shape {tuple(x.shape[1:])} or {tuple(x.shape)}, got {tuple(found.shape)}"
        )
    return found.expand(x.shape)
