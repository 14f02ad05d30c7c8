"""Transfer: adversarial images of another model, shown to this one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, attackable, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import margin, uphill
from repulse.attacks.passes import Passes
from repulse.attacks.threat import Threat, column
from repulse.common.errors import RepulseError


@dataclass(frozen=True)
class Transfer(Attack):
    """Momentum iterative FGSM on a surrogate's margin (Dong et al. 2018), with the victim asked on the way.

    Images that barely fool the surrogate seldom fool another model, so the climb never stops for the surrogate's sake:
    it ends when the victim is fooled. The source climbs cross-entropy, which has no gradient left where the surrogate
    is sure; its steps have length eps / steps, so that only the last point lies on the edge of the ball.

    Args:
        surrogate: maps images to logits of the same classes, on the images' device; attacked in evaluation mode.
        steps: gradient steps on the surrogate.
        momentum: the source's decay factor mu, not negative.
        step_size: length of a step in the threat's norm; None: a tenth of eps.
        ask_every: the victim is asked after so many steps, and after the last.

    Raises:
        RepulseError: if steps or ask_every is below 1, the step is not positive, or momentum is negative.
    """

    surrogate: nn.Module
    steps: int = 50
    momentum: float = 1.0
    step_size: float | None = None
    ask_every: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1 or self.ask_every < 1:
            raise RepulseError(f"steps and ask_every must be at least 1, got {self.steps} and {self.ask_every}")
        if self.step_size is not None and not self.step_size > 0:
            raise RepulseError(f"step_size must be positive, got {self.step_size}")
        if not self.momentum >= 0:
            raise RepulseError(f"momentum must not be negative, got {self.momentum}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:  # noqa: ARG002
        """Climb the surrogate until the victim is fooled; passes count what the victim was asked, not the surrogate."""
        best = x.clone()
        left = torch.arange(len(x), device=x.device)
        images, gathered = x, torch.zeros_like(x)
        step = threat.eps / 10 if self.step_size is None else self.step_size
        passes = Passes.none(x)
        with attackable(self.surrogate):
            for taken in range(1, self.steps + 1):
                if len(left) == 0:
                    break
                gathered = self.momentum * gathered + _unit(self._gradient(images, y[left]))
                images = threat.project(images + threat.steepest_step(gathered, step), x[left])
                if taken % self.ask_every and taken < self.steps:
                    continue
                with torch.inference_mode():
                    robust = checked_logits(model(images), y[left]).argmax(1) == y[left]
                passes.add(left, forward=1)
                best[left] = images
                stay = robust.nonzero().flatten().clone()
                left, images, gathered = left[stay], images[stay], gathered[stay]
        return Perturbed(best, passes)

    def _gradient(self, images: Tensor, y: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        values = margin(checked_logits(self.surrogate(images), y), y)
        return uphill(values, images)


def _unit(gradient: Tensor) -> Tensor:
    """Of unit L1 norm, as in the source (eq. 6), or nought."""
    length = gradient.flatten(1).abs().sum(1).clamp_min(1e-38)
    return gradient / column(length, gradient)
