"""Plain training first, the recipe afterwards."""

from __future__ import annotations

from repulse.common.errors import RepulseError
from repulse.training.recipes import Images, Labels, Outcome, Recipe, Replaying, Standard, Task


class Delayed:
    """A recipe that begins after a share of the training; until then, the loss of the clean images.

    A network that has learnt nothing yet gains little from images that are made hard for it, and pays for them twice
    (delayed adversarial training, Gupta, Dube & Verma 2020). Cost: that of plain training, then that of the recipe.

    Args:
        recipe: what begins later.
        delay: share of all steps before it does, in [0, 1).

    Raises:
        RepulseError: if the share is out of range, or the recipe replays its batches.
    """

    def __init__(self, recipe: Recipe, delay: float) -> None:
        if not 0 <= delay < 1:
            raise RepulseError(f"a recipe's delay must lie in [0, 1), got {delay}")
        if isinstance(recipe, Replaying):
            raise RepulseError("a recipe that replays its batches cannot begin later; leave out recipe.delay")
        self.recipe, self.delay = recipe, delay
        self._plain = Standard()
        self._begun = delay == 0

    def on_progress(self, share: float) -> None:
        """Which share of all steps is done, in [0, 1)."""
        self._begun = share >= self.delay

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """What the recipe, or plain training, makes of a batch."""
        return (self.recipe if self._begun else self._plain)(task, x, y)
