"""Random points of the ball: the weakest attack, which nothing can mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import margin
from repulse.attacks.passes import Passes
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError

_KEY = 20_000


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

    tries: int = 100

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise RepulseError(f"tries must be at least 1, got {self.tries}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Try until fooled; elsewhere the point with the largest margin."""
        best, values = x.clone(), x.new_full((len(x),), -torch.inf)
        left = torch.arange(len(x), device=x.device)
        passes = Passes.none(x)
        for trial in range(self.tries):
            if len(left) == 0:
                break
            # A point of the ball takes two keys.
            part, key = noise.take(left), _KEY + 2 * trial
            tried = _extreme_point(x[left], threat, part, key) if trial % 2 else threat.random_point(x[left], part, key)
            with torch.inference_mode():
                logits = checked_logits(model(tried), y[left])
                value = margin(logits, y[left])
                fooled = logits.argmax(1) != y[left]
            passes.add(left, forward=1)
            # Left inference mode by a copy, so that it may be written with.
            value, fooled = value.clone(), fooled.clone()
            better = fooled | (value > values[left])
            best[left[better]], values[left[better]] = tried[better], value[better].to(values)
            left = left[~fooled]
        return Perturbed(best, passes)


def _extreme_point(clean: Tensor, threat: Threat, noise: Noise, key: int) -> Tensor:
    """As far as the ball reaches, in a random direction."""
    return (clean + threat.steepest_step(noise.normal(clean, key), threat.eps)).clamp(threat.low, threat.high)
