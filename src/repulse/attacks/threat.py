"""What an attacker may do: a ball around each image, inside the range of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks.noise import Noise
from repulse.common.errors import RepulseError

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Threat:
    """All images within `eps` of the clean one in a norm, with pixels between `low` and `high`.

    Args:
        norm: `linf` or `l2`.
        eps: radius of the ball, in units of pixels; not negative.
        low: least pixel value.
        high: greatest pixel value.

    Raises:
        RepulseError: if the norm is unknown, eps is negative or not finite, or the range is empty.
    """

    norm: Norm
    eps: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise RepulseError(f"norm must be 'linf' or 'l2', got {self.norm!r}")
        if not 0 <= self.eps < float("inf"):
            raise RepulseError(f"eps must be a finite number, not negative, got {self.eps}")
        if not self.low < self.high:
            raise RepulseError(f"the range of pixels must not be empty, got {self.low} to {self.high}")

    @property
    def tolerance(self) -> float:
        """How far outside the ball rounding may put an image: a few units in the last place of float32 pixels."""
        largest = max(1.0, abs(self.low), abs(self.high))
        return 2.5e-7 * largest if self.norm == "linf" else 1e-5 * max(largest, self.eps)

    def distance(self, a: Float[Tensor, "N *shape"], b: Float[Tensor, "N *shape"]) -> Float[Tensor, "N"]:
        """The distance of each image of `a` to its twin in `b`, in the norm."""
        difference = (a - b).flatten(1)
        return difference.abs().amax(1) if self.norm == "linf" else difference.norm(dim=1)

    def project(
        self,
        images: Float[Tensor, "N *shape"],
        clean: Float[Tensor, "N *shape"],
        radius: Float[Tensor, "N"] | None = None,
    ) -> Float[Tensor, "N *shape"]:
        """The nearest images that are allowed (for L2: into the ball, then into the range, which stays in the ball).

        Args:
            images: to be moved.
            clean: centres of the balls.
            radius: of each ball; None: eps.
        """
        difference = images - clean
        reach: Tensor | float = self.eps if radius is None else column(radius, images)
        if self.norm == "linf":
            difference = difference.clamp(-reach, reach)  # type: ignore[arg-type]
        else:
            length = column(difference.flatten(1).norm(dim=1), difference)
            difference = difference * (reach / length.clamp_min(1e-12)).clamp_max(1)
        return (clean + difference).clamp(self.low, self.high)

    def random_point(
        self, clean: Float[Tensor, "N *shape"], noise: Noise, *key: str | int
    ) -> Float[Tensor, "N *shape"]:
        """A point drawn uniformly from each image's ball, brought into the range of pixels."""
        if self.norm == "linf":
            return (clean + self.eps * (2 * noise.uniform(clean, *key) - 1)).clamp(self.low, self.high)
        direction = noise.normal(clean, *key)
        direction = direction / column(direction.flatten(1).norm(dim=1).clamp_min(1e-12), direction)
        # The share of a ball's volume inside radius r is r^dim, so the radius is a dim-th root of a uniform number.
        radius = noise.uniform(clean.flatten(1)[:, 0], *key, "radius") ** (1 / clean.shape[1:].numel())
        return (clean + self.eps * column(radius, clean) * direction).clamp(self.low, self.high)

    def dual_norm(self, gradient: Float[Tensor, "N *shape"]) -> Float[Tensor, "N"]:
        """How much a linear function of this gradient rises along its steepest step of length 1."""
        flat = gradient.flatten(1)
        if self.norm == "linf":
            return flat.abs().sum(1)
        # Scaled by its largest entry first: the square of a tiny gradient is zero in float32.
        largest = flat.abs().amax(1)
        length: Tensor = largest * (flat / largest.clamp_min(1e-38).unsqueeze(1)).norm(dim=1)
        return length

    def steepest_step(self, gradient: Float[Tensor, "N *shape"], size: float) -> Float[Tensor, "N *shape"]:
        """The step of length `size` in the norm along which a linear function rises most; zero where it is flat."""
        if self.norm == "linf":
            return size * gradient.sign()
        # Scaled by its largest entry first: the square of a tiny gradient is zero in float32.
        largest = column(gradient.flatten(1).abs().amax(1), gradient)
        scaled = torch.where(largest > 0, gradient / largest.clamp_min(1e-38), torch.zeros_like(gradient))
        return size * scaled / column(scaled.flatten(1).norm(dim=1).clamp_min(1e-12), scaled)


def column(values: Tensor, like: Tensor) -> Tensor:
    """One value per image, shaped so that it multiplies images."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
