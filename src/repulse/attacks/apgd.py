"""Auto-PGD: gradient ascent with momentum whose step size follows from progress.

Source: Croce & Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks*, ICML 2020, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import Objective, uphill
from repulse.attacks.passes import Passes
from repulse.attacks.targets import TargetedObjective, dlr_targeted, nearest_wrong_classes
from repulse.attacks.threat import Threat, column
from repulse.common.errors import RepulseError

# Noise is keyed by these, so that no two attacks start at the same points.
_UNTARGETED, _TARGETED = 1000, 2000

Value = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(images (M, *shape), rows (M,)) -> values (M,), logits (M, n)`: an objective on some rows of a batch."""


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on an objective, from random points of the ball.

    Args:
        objective: what to climb.
        steps: gradient steps per start.
        restarts: random starts; later ones are tried on what earlier ones left.

    Raises:
        RepulseError: if steps or restarts are below 1.
    """

    objective: Objective
    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        _check(self.steps, restarts=self.restarts)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Climb from every start; stop at the first success of each image."""

        def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return self.objective(model, images, y[rows])

        return _one_after_another([value] * self.restarts, x, y, threat, noise, self.steps, _UNTARGETED)


@dataclass(frozen=True)
class TargetedAPGD(Attack):
    """Auto-PGD towards each of the likeliest wrong classes in turn.

    A step that leads to any wrong class counts, whichever was aimed at.

    Args:
        objective: what to climb, given the target; the source's targeted DLR.
        targets: how many classes to aim at, the likeliest on the clean image first; at most all wrong ones.
        steps: gradient steps per target.

    Raises:
        RepulseError: if steps or targets are below 1.
    """

    objective: TargetedObjective = dlr_targeted
    targets: int = 9
    steps: int = 100

    def __post_init__(self) -> None:
        _check(self.steps, targets=self.targets)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Climb towards every target; stop at the first success of each image."""
        with torch.no_grad():
            targets = nearest_wrong_classes(checked_logits(model(x), y), y, self.targets)

        def towards(target: Tensor) -> Value:
            def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                logits: Tensor = model(images)
                return self.objective(logits, y[rows], target[rows]), logits

            return value

        values = [towards(target) for target in targets.unbind(1)]
        found = _one_after_another(values, x, y, threat, noise, self.steps, _TARGETED)
        found.passes.add(torch.arange(len(x), device=x.device), forward=1)
        return found


def _check(steps: int, **counts: int) -> None:
    for name, count in {"steps": steps, **counts}.items():
        if count < 1:
            raise RepulseError(f"{name} must be at least 1, got {count}")


def _one_after_another(
    values: list[Value], x: Tensor, y: Tensor, threat: Threat, noise: Noise, steps: int, key: int
) -> Perturbed:
    """One ascent per objective, each on the images that none before it fooled."""
    best = x.clone()
    left = torch.arange(len(x), device=x.device)
    passes = Passes.none(x)
    for index, value in enumerate(values):
        if len(left) == 0:
            break
        climb = _Climb(value, x, y, left, threat, noise, key + 2 * index, passes)
        climb.run(steps)
        best[left], left = climb.result, left[~climb.fooled]
    return Perturbed(best, passes)


class _Climb:
    """One ascent of some rows of a batch; holds the state of those that are not fooled yet."""

    def __init__(
        self,
        value: Value,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        threat: Threat,
        noise: Noise,
        key: int,
        passes: Passes,
    ) -> None:
        self.value, self.threat, self.passes = value, threat, passes
        self.labels, self.rows = y, rows
        # Where each remaining image stands in `result`.
        self.place = torch.arange(len(rows), device=x.device)
        self.fooled = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        self.clean = x[rows]
        self.images = threat.random_point(self.clean, noise.take(rows), key)
        self.result = self.images.clone()
        self.before = self.images
        self.step = torch.full((len(rows),), 2 * threat.eps, device=x.device, dtype=x.dtype)
        self.loss, self.gradient = self._ask(last=False)
        self.best_loss, self.best_images, self.best_gradient = self.loss, self.images, self.gradient

    def run(self, steps: int) -> None:
        """Climb; the step is halved at checkpoints that come ever faster (section 3.1 of the source)."""
        period, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
        since = 0
        self.rises = torch.zeros_like(self.loss)
        self.halved = torch.ones_like(self.fooled[: len(self.loss)])
        self.loss_at_check = self.best_loss
        for taken in range(steps):
            self._leave()
            if len(self.rows) == 0:
                return
            self._move(momentum=0.25 if taken else 0.0)
            last = taken + 1 == steps
            loss, gradient = self._ask(last=last)
            if last:
                break
            self.rises = self.rises + (loss > self.loss)
            self.loss, self.gradient = loss, gradient
            self._keep_best()
            since += 1
            if since == period:
                self._checkpoint(period)
                period, since = max(period - shrink, least), 0
        # Nobody was fooled here: the highest point is the one to show.
        remaining = ~self.fooled[self.place]
        self.result[self.place[remaining]] = self.best_images[remaining]

    def _ask(self, *, last: bool) -> tuple[Tensor, Tensor]:
        """Values and gradients at the present images, noting who is fooled; the last step needs no gradient."""
        if last:
            with torch.no_grad():
                loss, logits = self.value(self.images, self.rows)
            gradient = self.gradient
        else:
            images = self.images.detach().requires_grad_()
            loss, logits = self.value(images, self.rows)
            gradient = uphill(loss, images)
        self.passes.add(self.rows, forward=1, backward=0 if last else 1)
        labels = self.labels[self.rows]
        self.gone = checked_logits(logits.detach(), labels).argmax(1) != labels
        fooled = self.place[self.gone]
        self.fooled[fooled] = True
        self.result[fooled] = self.images[self.gone]
        return loss.detach(), gradient

    def _leave(self) -> None:
        """Fooled images leave the batch."""
        if not bool(self.gone.any()):
            return
        stay = (~self.gone).nonzero().flatten()
        for name in ("place", "rows", "clean", "images", "before", "step", "loss", "gradient", "best_loss"):
            setattr(self, name, getattr(self, name)[stay])
        for name in ("best_images", "best_gradient", "rises", "halved", "loss_at_check"):
            setattr(self, name, getattr(self, name)[stay])

    def _move(self, momentum: float) -> None:
        """A projected step, then some of the last move on top of it (eq. 1 of the source)."""
        stepped = self.images + column(self.step, self.images) * self.threat.steepest_step(self.gradient, 1.0)
        stepped = self.threat.project(stepped, self.clean)
        if momentum:
            ahead = self.images + (1 - momentum) * (stepped - self.images) + momentum * (self.images - self.before)
            stepped = self.threat.project(ahead, self.clean)
        self.before, self.images = self.images, stepped

    def _keep_best(self) -> None:
        better = self.loss > self.best_loss
        changed = column(better, self.images)
        self.best_loss = torch.where(better, self.loss, self.best_loss)
        self.best_images = torch.where(changed, self.images, self.best_images)
        self.best_gradient = torch.where(changed, self.gradient, self.best_gradient)

    def _checkpoint(self, period: int) -> None:
        """Halve the step, and go back to the best point, where climbing has stalled (conditions 1 and 2)."""
        # 0.75: the share of steps that must have risen.
        stalled = self.rises <= 0.75 * period
        stalled |= ~self.halved & (self.loss_at_check >= self.best_loss)
        changed = column(stalled, self.images)
        self.step = torch.where(stalled, self.step / 2, self.step)
        self.images = torch.where(changed, self.best_images, self.images)
        self.gradient = torch.where(changed, self.best_gradient, self.gradient)
        self.loss = torch.where(stalled, self.best_loss, self.loss)
        self.halved, self.loss_at_check = stalled, self.best_loss
        self.rises = torch.zeros_like(self.rises)
