"""Transfer: adversarial images of another model, shown to this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from repulse.attacks.ascent import ascend
from repulse.attacks.attack import ATTACKS, Attack, attackable, checked_logits
from repulse.attacks.objectives import margin
from repulse.attacks.standing import Standing
from repulse.common.errors import RepulseError


@ATTACKS.register("transfer")
@dataclass(frozen=True)
class Transfer(Attack):
    """Momentum iterative FGSM on a surrogate's margin (Dong et al. 2018), with the model asked on the way.

    Images that barely fool the surrogate seldom fool another model, so the climb never stops for the surrogate's sake:
    it ends when the model is fooled. The source climbs cross-entropy, which has no gradient left where the surrogate
    is sure; its steps have length eps / steps, so that only the last point lies on the edge of the ball.

    Args:
        surrogate: maps images to logits of the same classes, on the images' device; attacked in evaluation mode.
        steps: gradient steps on the surrogate.
        momentum: the source's decay factor mu, not negative.
        step_size: length of a step in the threat's norm; None: a tenth of eps.
        ask_every: the model is asked after so many steps, and after the last.

    Raises:
        RepulseError: if steps or ask_every is below 1, the step is not positive, or momentum is negative.
    """

    black_box: ClassVar[bool] = True

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

    def search(self, standing: Standing) -> None:
        """Climb the surrogate until the model is fooled; passes count what the model was asked, not the surrogate."""
        threat, rows, taken = standing.threat, standing.rows, 0
        step = threat.eps / 10 if self.step_size is None else self.step_size
        left = rows

        def height(images: Tensor) -> Tensor:
            nonlocal taken
            if taken and taken % self.ask_every == 0:
                standing.ask(images, left, show=True)
            taken += 1
            y = standing.labels[left]
            return margin(checked_logits(self.surrogate(images), y), y)

        def keep() -> Tensor:
            nonlocal left
            stay = standing.still(left)
            left = left[stay]
            return stay

        with attackable(self.surrogate):
            clean = standing.clean[rows]
            images = ascend(height, clean, clean, threat, self.steps, step, momentum=self.momentum, keep=keep)
        standing.ask(images, left, show=True)
