"""Training that preserves the separation of the prototypes."""

from repulse.training.averages import AVERAGES
from repulse.training.fit import Watcher, fit, make_fabric, natural_accuracy
from repulse.training.loss import LOSSES, Loss
from repulse.training.losses import CrossEntropy
from repulse.training.metrics import EpochMetrics, read_metrics
from repulse.training.optimisers import OPTIMISERS
from repulse.training.recipe import RECIPES, Recipe, RecipeResult, Task
from repulse.training.recipes import Standard
from repulse.training.schedules import SCHEDULES
from repulse.training.settings import FitSettings

__all__ = [
    "AVERAGES",
    "LOSSES",
    "OPTIMISERS",
    "RECIPES",
    "SCHEDULES",
    "CrossEntropy",
    "EpochMetrics",
    "FitSettings",
    "Loss",
    "Recipe",
    "RecipeResult",
    "Standard",
    "Task",
    "Watcher",
    "fit",
    "make_fabric",
    "natural_accuracy",
    "read_metrics",
]
