"""From settings to a recipe."""

from __future__ import annotations

import inspect

from repulse.common.errors import RepulseError
from repulse.config.settings import RecipeSettings
from repulse.training.delayed import Delayed
from repulse.training.recipes import RECIPES, Recipe


def make_recipe(settings: RecipeSettings) -> Recipe:
    """The recipe that the settings name; what they leave open has the recipe's own default.

    Raises:
        RepulseError: if the name is unknown, the recipe has no such setting, or a setting is impossible.
    """
    make = RECIPES[settings.name]
    own = inspect.signature(make).parameters
    given = {key: value for key, value in settings.model_dump(exclude={"name", "delay"}).items() if value is not None}
    for key in given.keys() - own.keys():
        raise RepulseError(
            f"recipe {settings.name!r} has no setting {key!r}; leave out recipe.{key} "
            f"(it has: {', '.join(own) or 'none'})"
        )
    recipe = make(**given)
    return recipe if settings.delay is None else Delayed(recipe, settings.delay)
