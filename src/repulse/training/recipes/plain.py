"""Recipes without adversaries: clean images, or noisy ones."""

from __future__ import annotations

import torch
from pydantic import Field

from repulse.training.loss import Labels
from repulse.training.recipe import RECIPES, Images, Recipe, RecipeResult, Task


@RECIPES.register("standard")
class Standard(Recipe):
    """The training loss of the clean images. Cost: 1 forward pass, 1 backward."""

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss as it is."""
        z = task.embed(x)
        return RecipeResult(task.loss(z, y), z)


@RECIPES.register("noise")
class GaussianNoise(Recipe):
    """The training loss of images with Gaussian noise added (Cohen et al. 2019, section 3.3).

    Pixels are not clamped: a smoothed classifier meets the same noise, and some of its pixels lie outside [0, 1] too.
    Cost: 1 forward pass, 1 backward.
    """

    sigma: float = Field(0.25, ge=0, description="Standard deviation of the noise, in pixels of [0, 1].")

    @property
    def gaussian_noise(self) -> float:
        """Its standard deviation."""
        return self.sigma

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of noisy images."""
        z = task.embed(x + self.sigma * torch.randn_like(x))
        return RecipeResult(task.loss(z, y), z)
