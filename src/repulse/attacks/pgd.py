"""Projected gradient descent, and its one-step form."""

from __future__ import annotations

from dataclasses import dataclass

from repulse.attacks.ascent import ascend
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.objectives import Objective
from repulse.attacks.standing import Climb, Standing
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError


@ATTACKS.register("pgd")
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

    def search(self, standing: Standing) -> None:
        """Run every start on the images that no earlier start fooled; elsewhere the last image is shown."""
        threat = standing.threat
        step = threat.eps / 4 if self.step_size is None else self.step_size
        for restart in range(self.restarts):
            rows = standing.rows
            clean = standing.clean[rows]
            start = standing.random_point(rows, "pgd", restart) if self.random_start else clean
            climb = Climb(standing, standing.value(self.objective), rows)
            images = ascend(climb, start, clean, threat, self.steps, step, keep=climb.keep)
            standing.ask(images, climb.rows, climb.value, show=True)


def fgsm(objective: Objective, threat: Threat) -> PGD:
    """The fast gradient sign method (Goodfellow et al. 2015): one step of length eps from the clean image."""
    return PGD(objective, steps=1, step_size=threat.eps or None)
