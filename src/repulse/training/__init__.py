"""Training that preserves the separation of the prototypes."""

from repulse.config.settings import FitSettings, RecipeSettings
from repulse.training import (  # noqa: F401 (enter what they hold)
    certified_losses,
    free,
    learned_losses,
    linf_losses,
    local_linearity,
    single_step,
)
from repulse.training.fit import Watcher, fit, make_fabric, natural_accuracy
from repulse.training.losses import LOSSES, Loss, make_loss
from repulse.training.make import make_recipe
from repulse.training.metrics import EpochMetrics, read_metrics
from repulse.training.recipes import RECIPES, Outcome, Recipe, Task

__all__ = [
    "LOSSES",
    "RECIPES",
    "EpochMetrics",
    "FitSettings",
    "Loss",
    "Outcome",
    "Recipe",
    "RecipeSettings",
    "Task",
    "Watcher",
    "fit",
    "make_fabric",
    "make_loss",
    "make_recipe",
    "natural_accuracy",
    "read_metrics",
]
