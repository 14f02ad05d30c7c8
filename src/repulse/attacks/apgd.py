"""Auto-PGD: gradient ascent with momentum whose step size follows from progress.

Source: Croce & Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks*, ICML 2020, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.objectives import OBJECTIVES, Objective
from repulse.attacks.standing import Standing, Value
from repulse.attacks.targets import TargetedObjective, classes_by_distance, dlr_targeted, nearest_wrong_classes
from repulse.attacks.threat import column
from repulse.common.errors import RepulseError


@ATTACKS.register("apgd")
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

    def search(self, standing: Standing) -> None:
        """Climb from every start; stop at the first success of each image."""
        for restart in range(self.restarts):
            _climb(standing, standing.value(self.objective), self.steps, "apgd", restart)


@ATTACKS.register("apgd-targeted")
@dataclass(frozen=True)
class TargetedAPGD(Attack):
    """Auto-PGD towards each of the likeliest wrong classes in turn.

    A step that leads to any wrong class counts, whichever was aimed at.

    Args:
        objective: what to climb, given the target; the source's targeted DLR.
        targets: how many classes to aim at; at most all wrong ones.
        steps: gradient steps per target.
        nearest: aim at the classes whose boundary is nearest to first order (see `classes_by_distance`), instead of
            those with the largest logits.

    Raises:
        RepulseError: if steps or targets are below 1.
    """

    objective: TargetedObjective = dlr_targeted
    targets: int = 9
    steps: int = 100
    nearest: bool = False

    def __post_init__(self) -> None:
        _check(self.steps, targets=self.targets)

    def search(self, standing: Standing) -> None:
        """Climb towards every target; stop at the first success of each image."""
        if len(standing.rows) == 0:
            return
        if self.nearest:
            targets = classes_by_distance(standing, self.targets)
        else:
            targets = nearest_wrong_classes(standing.clean_logits(), standing.labels, self.targets)
        for index, target in enumerate(targets.unbind(1)):
            _climb(standing, standing.towards(target, self.objective), self.steps, "apgd-targeted", index)


# Under the names that AutoAttack and its users give them.
for _name, _climbed in {"apgd-ce": "cross-entropy", "apgd-dlr": "dlr", "apgd-margin": "margin"}.items():
    ATTACKS.register(_name)(partial(APGD, OBJECTIVES[_climbed]))


def _check(steps: int, **counts: int) -> None:
    for name, count in {"steps": steps, **counts}.items():
        if count < 1:
            raise RepulseError(f"{name} must be at least 1, got {count}")


def _climb(standing: Standing, value: Value, steps: int, *key: str | int) -> None:
    """One ascent of what still stands, from random points."""
    rows = standing.rows
    if len(rows):
        Climb(standing, value, rows, standing.random_point(rows, *key)).run(steps)


class Climb:
    """One ascent; holds the state of the rows that still stand."""

    def __init__(self, standing: Standing, value: Value, rows: Tensor, start: Tensor) -> None:
        self.standing, self.value, self.threat = standing, value, standing.threat
        self.rows, self.clean, self.images, self.before = rows, standing.clean[rows], start, start
        self.step = torch.full((len(rows),), 2 * self.threat.eps, device=start.device, dtype=start.dtype)
        answer = standing.ask(start, rows, value, gradient=True)
        self.stay, self.loss, self.gradient = answer.stay, answer.values, answer.gradient
        self.best_loss, self.best_images, self.best_gradient = self.loss, self.images, self.gradient
        self.rises, self.loss_at_check = torch.zeros_like(self.loss), self.loss
        self.halved = torch.ones_like(rows, dtype=torch.bool)

    def run(self, steps: int) -> None:
        """Climb; the step is halved at checkpoints that come ever faster (section 3.1 of the source)."""
        period, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
        since = 0
        for taken in range(steps):
            self._leave()
            if len(self.rows) == 0:
                return
            self._move(momentum=0.25 if taken else 0.0)
            last = taken + 1 == steps
            answer = self.standing.ask(self.images, self.rows, self.value, gradient=not last)
            self.stay = answer.stay
            if last:
                return
            self.rises = self.rises + (answer.values > self.loss)
            self.loss, self.gradient = answer.values, answer.gradient
            self._keep_best()
            since += 1
            if since == period:
                self._checkpoint(period)
                period, since = max(period - shrink, least), 0

    def _leave(self) -> None:
        """Fallen images leave the batch."""
        if len(self.stay) == len(self.rows):
            return
        for name, kept in vars(self).items():
            if isinstance(kept, Tensor) and name != "stay":
                setattr(self, name, kept[self.stay])

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
