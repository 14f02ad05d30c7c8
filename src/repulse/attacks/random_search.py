"""Random points of the ball: the weakest attack, which nothing can mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.noise import Noise
from repulse.attacks.standing import Standing
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError


@ATTACKS.register("random-search")
@dataclass(frozen=True)
class RandomSearch(Attack):
    """Random points of the ball, by turns drawn from all of it and from its extremes; forward passes only.

    Extremes are corners in L-inf (each pixel up or down by eps) and points at distance eps in L2, before the range of
    pixels cuts them. If this fools where gradient attacks don't, the gradients are masked (Carlini et al. 2019).

    Args:
        tries: points per image, at most.

    Raises:
        RepulseError: if tries is below 1.
    """

    black_box: ClassVar[bool] = True

    tries: int = 100

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise RepulseError(f"tries must be at least 1, got {self.tries}")

    def search(self, standing: Standing) -> None:
        """Try until fooled."""
        for trial in range(self.tries):
            rows = standing.rows
            if len(rows) == 0:
                return
            clean, noise = standing.clean[rows], standing.noise.take(rows)
            if trial % 2:
                tried = _extreme_point(clean, standing.threat, noise, trial)
            else:
                tried = standing.threat.random_point(clean, noise, "random-search", trial)
            standing.ask(tried, rows)


def _extreme_point(clean: Tensor, threat: Threat, noise: Noise, trial: int) -> Tensor:
    """As far as the ball reaches, in a random direction."""
    direction = noise.normal(clean, "random-search", trial)
    return (clean + threat.steepest_step(direction, threat.eps)).clamp(threat.low, threat.high)
