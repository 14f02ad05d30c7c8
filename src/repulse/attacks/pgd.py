"""Projected gradient descent, and its one-step form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import Objective, uphill
from repulse.attacks.passes import Passes
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError


@dataclass(frozen=True)
class PGD(Attack):
    """Climb an objective by steps of fixed length, projecting back after each (Madry et al. 2018).

    An image leaves the batch as soon as it is fooled: any step's image counts, not only the last one's.

    Args:
        objective: what to climb.
        steps: gradient steps per start.
        step_size: length of a step in the threat's norm; None: a quarter of eps.
        restarts: starts; the first is the clean image unless `random_start`.
        random_start: begin at a random point of the ball.

    Raises:
        RepulseError: if steps or restarts are below 1, the step is not positive, or several starts would be one.
    """

    objective: Objective
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise RepulseError(f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}")
        if self.step_size is not None and not self.step_size > 0:
            raise RepulseError(f"step_size must be positive, got {self.step_size}")
        if self.restarts > 1 and not self.random_start:
            raise RepulseError("restarts from the clean image all end alike; set random_start")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Run every start on the images that no earlier start fooled."""
        best = x.clone()
        left = torch.arange(len(x), device=x.device)
        step = threat.eps / 4 if self.step_size is None else self.step_size
        passes = Passes.none(x)
        for restart in range(self.restarts):
            if len(left) == 0:
                break
            images = x[left]
            if self.random_start:
                images = threat.random_point(images, noise.take(left), 2 * restart)
            for taken in range(self.steps + 1):
                last = taken == self.steps
                if len(left) == 0:
                    break
                passes.add(left, forward=1, backward=0 if last else 1)
                if last:
                    with torch.no_grad():
                        logits = self.objective(model, images, y[left])[1]
                    gradient = torch.zeros_like(images)
                else:
                    images = images.detach().requires_grad_()
                    values, logits = self.objective(model, images, y[left])
                    gradient = uphill(values, images)
                images = images.detach()
                fooled = checked_logits(logits.detach(), y[left]).argmax(1) != y[left]
                best[left] = images
                staying = (~fooled).nonzero().flatten()
                left, images = left[staying], images[staying]
                if not last:
                    images = threat.project(images + threat.steepest_step(gradient[staying], step), x[left])
        return Perturbed(best, passes)


def fgsm(objective: Objective, threat: Threat) -> PGD:
    """The fast gradient sign method (Goodfellow et al. 2015): one step of length eps from the clean image."""
    return PGD(objective, steps=1, step_size=threat.eps or None)
