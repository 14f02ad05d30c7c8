"""Training that preserves the separation of the prototypes."""

from repulse.settings import FitSettings
from repulse.training.fit import Watcher, fit, make_fabric, natural_accuracy
from repulse.training.losses import LOSSES, Loss, make_loss
from repulse.training.metrics import EpochMetrics, read_metrics

__all__ = [
    "LOSSES",
    "EpochMetrics",
    "FitSettings",
    "Loss",
    "Watcher",
    "fit",
    "make_fabric",
    "make_loss",
    "natural_accuracy",
    "read_metrics",
]
