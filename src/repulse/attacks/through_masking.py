"""Attack through what hides a gradient: a backward pass made smooth, and gradients averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repulse.attacks.apgd import Climb as AutoClimb
from repulse.attacks.ascent import ascend
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.minimum_norm import at_least
from repulse.attacks.objectives import margin
from repulse.attacks.smooth_backward import SmoothBackward
from repulse.attacks.standing import Climb, Standing, Value
from repulse.attacks.targets import margin_targeted, nearest_wrong_classes
from repulse.common.errors import RepulseError

# So many images tell whether there is a gradient at all.
_PROBED = 8


@ATTACKS.register("through-masking")
@dataclass(frozen=True)
class ThroughMasking(Attack):
    """Climb the margin on a backward pass made smooth, on a smooth stand-in, on averaged gradients, towards classes.

    What is climbed has another backward pass (see `SmoothBackward`), or is a stand-in; the model that is asked is the
    model itself, so what falls has fallen. First Auto-PGD with a smooth backward pass, then on the stand-in, whose
    values tell apart what clamps and votes make equal; then steps with momentum along the mean gradient at random
    points nearby, as jagged surfaces need (Smilkov et al. 2017); at last Auto-PGD on the stand-in towards the likeliest
    classes.

    Args:
        steps: of each climb.
        samples: points nearby per step of the averaged climb; they come in pairs, on both sides of the image.
        width: how far away they lie in each pixel, at most, in multiples of eps (L-inf), or of eps over the root of the
            number of pixels (L2).
        targets: how many classes to aim at; at most all wrong ones.

    Raises:
        RepulseError: if steps are below 1, samples below 2 or odd, targets below 0, or width is not positive.
    """

    own_slopes: ClassVar[bool] = True

    steps: int = 40
    samples: int = 8
    width: float = 0.5
    targets: int = 3

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), samples=(self.samples, 2), targets=(self.targets, 0))
        if self.samples % 2:
            raise RepulseError(f"samples come in pairs, got {self.samples}")
        if not self.width > 0:
            raise RepulseError(f"width must be positive, got {self.width:g}")

    def search(self, standing: Standing) -> None:
        """All climbs, each on what still stands; none where even the stand-in has no gradient."""
        if (rows := standing.rows[:_PROBED]).numel() == 0:
            return
        value = self._value(standing, margin, "probe", stand_in=True)
        if not standing.ask(standing.clean[rows], rows, value, gradient=True).gradient.any():
            return
        self._climb(standing, margin, "smooth")
        self._climb(standing, margin, "stand-in", stand_in=True)
        self._climb_averaged(standing)
        if not self.targets or len(standing.rows) == 0:
            return
        targets = nearest_wrong_classes(standing.clean_logits(), standing.labels, self.targets)
        for index, target in enumerate(targets.unbind(1)):
            self._climb(standing, margin_targeted, f"target {index}", target, stand_in=True)

    def _climb(
        self, standing: Standing, objective: Callable[..., Tensor], key: str, *target: Tensor, stand_in: bool = False
    ) -> None:
        rows = standing.rows
        if len(rows):
            start = standing.random_point(rows, "through-masking", key)
            value = self._value(standing, objective, key, *target, stand_in=stand_in)
            AutoClimb(standing, value, rows, start).run(self.steps)

    def _climb_averaged(self, standing: Standing) -> None:
        rows, threat = standing.rows, standing.threat
        clean = standing.clean[rows]
        climb = Climb(standing, self._value(standing, margin, "averaged", pairs=self.samples // 2), rows)
        images = ascend(climb, clean, clean, threat, self.steps, threat.eps / 10, momentum=0.9, keep=climb.keep)
        standing.ask(images, climb.rows)

    def _value(
        self,
        standing: Standing,
        objective: Callable[..., Tensor],
        key: str,
        *target: Tensor,
        stand_in: bool = False,
        pairs: int = 1,
    ) -> Value:
        """An objective averaged over pairs of neighbours; and the model's own logits at the image."""
        smooth, threat = SmoothBackward(standing.model, stand_in=stand_in), standing.threat
        wide = self.width * threat.eps
        if threat.norm != "linf":
            wide /= standing.clean[0].numel() ** 0.5
        taken = 0

        def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal taken
            about = [each[rows].repeat(2) for each in (standing.labels, *target)]
            noise, total = standing.noise.take(rows), images.new_zeros(len(rows))
            for pair in range(pairs):
                moved = wide * (2 * noise.uniform(images, "through-masking", key, taken, pair) - 1)
                sides = [(images + side * moved).clamp(threat.low, threat.high) for side in (1, -1)]
                total = total + objective(smooth(*sides), *about).reshape(2, -1).mean(0)
            taken += 1
            with torch.no_grad():
                logits: Tensor = standing.model(images)
            # `look` counts one pass each way.
            standing.passes.add(rows, forward=2 * pairs, backward=2 * pairs - 1)
            return total / pairs, logits

        return value
