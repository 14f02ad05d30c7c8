"""What attacks that look for the smallest perturbation share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeGuard

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from repulse.attacks.attack import Attack, Model
from repulse.attacks.noise import Noise
from repulse.attacks.passes import Counted, Passes
from repulse.attacks.standing import Standing
from repulse.attacks.threat import Threat, column
from repulse.common.arrays import Arrays
from repulse.common.errors import RepulseError


@dataclass(frozen=True, eq=False)
class Smallest(Counted):
    """The smallest perturbation found for each image: the whole robustness curve at once."""

    images: Float[Tensor, "N *shape"]
    """The nearest adversarial image found; the clean image where it is wrong already, or where none was found."""
    distance: Float32[Tensor, "N"]
    """Its distance to the clean image, in units of pixels; 0: wrong already; inf: none found."""
    passes: Passes


@dataclass(frozen=True)
class MinimumNorm(Attack):
    """A walk towards the nearest adversarial image. Subclasses write `walk`.

    Args:
        bisections: forward passes of a bisection at the end, which brings the best point back to the boundary; each
            halves what is left to gain.
    """

    minimum_norm: ClassVar[bool] = True

    bisections: int = 10

    @abstractmethod
    def walk(self, standing: Standing) -> None:
        """Ask about images at any distance; those that fall leave."""

    def search(self, standing: Standing) -> None:
        """Walk until inside the ball; what fooled from outside gets a last try where its ray enters the ball."""
        self.walk(standing)
        rows = standing.rows
        rows = rows[standing.distance[rows].isfinite()]
        standing.ask(standing.threat.project(standing.nearest[rows], standing.clean[rows]), rows)

    def smallest(
        self,
        model: Model,
        x: Arrays,
        y: Arrays,
        threat: Threat,
        noise: Noise,
    ) -> Smallest:
        """The nearest adversarial image of every image, checked by the model; the threat's eps does not matter.

        Args:
            model: maps images to logits (N, n); attacked in evaluation mode, and left in the mode it was in.
            x: clean images, pixels in the threat's range.
            y: true classes.
            threat: its norm and range of pixels.
            noise: random numbers, for walks that use any.

        Raises:
            RepulseError: if images are not numbers or out of range, labels don't fit, or logits are not finite.
        """
        if not isinstance(threat, Threat):
            raise RepulseError("distances are of one unit for all images: give a Threat")
        with self._begun(model, x, y, threat, noise, 0.0) as standing:
            self.walk(standing)
            self._bisect(standing)
            fooled = self._asked_again(standing, standing.nearest).fooled
            images = torch.where(column(fooled, standing.clean), standing.nearest, standing.clean)
            distance = torch.where(fooled, threat.distance(images, standing.clean), torch.inf).float()
        return Smallest(images, distance, standing.passes)

    def _bisect(self, standing: Standing) -> None:
        """Bring each success nearer for as long as it remains one."""
        rows = standing.rows
        rows = rows[standing.distance[rows].isfinite()]
        found, high = standing.nearest[rows], standing.distance[rows]
        low = torch.zeros_like(high)
        for _ in range(self.bisections):
            middle = (low + high) / 2
            fooled = standing.ask(standing.threat.project(found, standing.clean[rows], middle), rows).fooled
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)


def seeks_minimum(attack: Attack) -> TypeGuard[MinimumNorm]:
    """Whether an attack finds the smallest perturbation, and so can tell it by `smallest`."""
    return attack.minimum_norm


def at_least(**counts: tuple[int, int]) -> None:
    """Refuse settings `name=(count, least)` that are below their least value.

    Raises:
        RepulseError: naming the first such setting.
    """
    for name, (count, least) in counts.items():
        if count < least:
            raise RepulseError(f"{name} must be at least {least}, got {count}")
