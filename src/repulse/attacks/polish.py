"""A last local search where the margin ends near zero: climb, then follow ridges by small linear programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks.apgd import Climb as AutoClimb
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.minimum_norm import at_least
from repulse.attacks.objectives import OBJECTIVES
from repulse.attacks.standing import Standing, Value
from repulse.attacks.targets import classes_by_distance, margin_targeted
from repulse.attacks.threat import Threat

# Planes that a program looks at: more make it slower, and old ones lie far away.
PLANES = 12


@ATTACKS.register("polish")
@dataclass(frozen=True)
class Polish(Attack):
    """Climb from several starts towards the nearest classes, and polish where each climb ends; for near misses.

    A network of ReLUs is linear in pieces, and steps along the gradient's sign run to and fro across the ridge where
    two pieces meet. Polishing is a bundle method (Kiwiel 1985): the gradients met so far are planes above the margin;
    the next point is where the lowest of them is highest, within a box around the best point, inside the ball. The box
    grows after a success and shrinks after a failure; planes that lie below a value that was met are forgotten.

    Args:
        starts: the first is the best image that is known, later ones are random; each aims at another class.
        steps: steps of Auto-PGD from each random start.
        rounds: linear programs, and passes, for each start.

    Raises:
        RepulseError: if a count is below 1.
    """

    starts: int = 6
    steps: int = 20
    rounds: int = 15

    def __post_init__(self) -> None:
        at_least(starts=(self.starts, 1), steps=(self.steps, 1), rounds=(self.rounds, 1))

    def search(self, standing: Standing) -> None:
        """Polish until fooled."""
        if len(standing.rows) == 0:
            return
        targets = classes_by_distance(standing, self.starts)
        for start in range(self.starts):
            rows = standing.rows
            if len(rows) == 0:
                return
            if start == 0:
                value, images = standing.value(OBJECTIVES["margin"]), standing.shown[rows]
            else:
                value = standing.towards(targets[:, (start - 1) % targets.shape[1]], margin_targeted)
                climb = AutoClimb(standing, value, rows, standing.random_point(rows, "polish", start))
                climb.run(self.steps)
                rows, images = climb.rows, climb.best_images
                still = standing.still(rows)
                rows, images = rows[still], images[still]
            self._polish(standing, value, rows, images)

    def _polish(self, standing: Standing, value: Value, rows: Tensor, images: Tensor) -> None:
        threat = standing.threat
        bundles = [_Bundle(threat, clean) for clean in standing.clean[rows]]
        for taken in range(self.rounds + 1):
            answer = standing.ask(images, rows, value, gradient=True)
            for bundle, *met in zip(bundles, images, answer.values.tolist(), answer.gradient, strict=True):
                bundle.take(*met)
            rows, bundles = rows[answer.stay], [bundles[place] for place in answer.stay.tolist()]
            if len(rows) == 0 or taken == self.rounds:
                return
            images = torch.stack([bundle.next() for bundle in bundles])


class _Bundle:
    """What is known of the objective around one image's best point."""

    def __init__(self, threat: Threat, clean: Float[Tensor, "*shape"]) -> None:
        self.threat, self.clean, self.box = threat, clean, threat.eps / 2
        self.best, self.value = clean, -float("inf")
        self.planes: list[tuple[Tensor, float, Tensor]] = []

    def take(self, image: Tensor, value: float, gradient: Tensor) -> None:
        """A value with its gradient that was met."""
        if value > self.value:
            self.box = self.box if self.value == -float("inf") else min(self.box * 2, 2 * self.threat.eps)
            self.best, self.value = image, value
        else:
            self.box /= 2
        planes = [*self.planes, (image, value, gradient)][-PLANES:]
        slack = 1e-6 * (1 + abs(self.value))
        self.planes = [plane for plane in planes if self._height(plane) >= self.value - slack]

    def _height(self, plane: tuple[Tensor, float, Tensor]) -> float:
        image, value, gradient = plane
        return value + float((gradient.double() * (self.best - image).double()).sum())

    def next(self) -> Float[Tensor, "*shape"]:
        """Where the lowest plane is highest."""
        import numpy as np
        from scipy.optimize import linprog

        best = self.best.flatten().double()
        low, high = torch.full_like(best, self.threat.low), torch.full_like(best, self.threat.high)
        if self.threat.norm == "linf":
            clean = self.clean.flatten().double()
            low, high = torch.maximum(low, clean - self.threat.eps), torch.minimum(high, clean + self.threat.eps)
        low, high = torch.maximum(low, best - self.box) - best, torch.minimum(high, best + self.box) - best
        # Variables: a move for each pixel, and the height; every plane bounds the height from above.
        slopes = torch.stack([plane[2].flatten().double() for plane in self.planes])
        heights = np.array([self._height(plane) for plane in self.planes])
        scale = float(slopes.abs().amax().clamp_min(1e-38))
        bounds = [*zip(low.clamp_max(0).tolist(), high.clamp_min(0).tolist(), strict=True), (None, None)]
        planes = np.column_stack(((-slopes / scale).cpu().numpy(), np.ones(len(heights))))
        cost = np.zeros(len(bounds))
        cost[-1] = -1.0
        found: Any = linprog(cost, A_ub=planes, b_ub=heights / scale, bounds=bounds, method="highs")
        if found.x is None:
            return self.best
        moved = self.best + torch.as_tensor(found.x[:-1]).to(self.best).reshape(self.best.shape)
        return self.threat.project(moved[None], self.clean[None])[0]
