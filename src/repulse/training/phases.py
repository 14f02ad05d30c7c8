"""Recipes that do not begin at once: plain training first, then a radius that grows."""

from __future__ import annotations

from repulse.common.errors import RepulseError
from repulse.training.loss import Labels
from repulse.training.recipe import AdversarialRecipe, Images, Recipe, RecipeResult, Replaying, Task
from repulse.training.recipes.plain import Standard


class Phased:
    """A recipe that begins after a share of the training, with a radius that grows; before, the loss of clean images.

    A network that has learnt nothing yet gains little from images that are made hard for it, and pays for them twice
    (delayed adversarial training, Gupta, Dube & Verma 2020); one that meets the whole radius at once may not learn at
    all, or overfit to single steps. Cost: that of plain training, then that of the recipe.

    Args:
        recipe: what begins after its `delay`, and grows over its `warmup`, if it has one.

    Raises:
        RepulseError: if the recipe replays its batches.
    """

    def __init__(self, recipe: Recipe) -> None:
        if isinstance(recipe, Replaying):
            raise RepulseError("a recipe that replays its batches cannot begin later; leave out recipe.delay")
        self.recipe = recipe
        self._plain = Standard()
        self._now = self._plain if recipe.delay else recipe

    def on_progress(self, share: float) -> None:
        """Which share of all steps is done, in [0, 1)."""
        recipe, since = self.recipe, share - self.recipe.delay
        if since < 0:
            self._now = self._plain
        elif isinstance(recipe, AdversarialRecipe) and since < recipe.warmup:
            self._now = recipe.grown(since / recipe.warmup)
        else:
            self._now = recipe

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """What the phase of training makes of a batch."""
        return self._now(task, x, y)


def phased(recipe: Recipe) -> Recipe | Phased:
    """The recipe as it is, or in its phases if it has some."""
    grows = isinstance(recipe, AdversarialRecipe) and recipe.warmup > 0
    return Phased(recipe) if recipe.delay or grows else recipe
