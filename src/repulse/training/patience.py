"""Stopping early, when the validation accuracy has stopped rising."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from repulse.common.errors import RepulseError
from repulse.training.recipe import Recipe
from repulse.training.settings import FitSettings


class Patience:
    """Counts epochs since the best validation accuracy.

    Args:
        settings: `patience` and `epochs`; without patience nothing is ever over.
        recipe: its delay and warm-up do not count: while the radius grows, natural accuracy falls.
        history: validation accuracies of the epochs that are done.
        validated: whether there are validation images.

    Raises:
        RepulseError: if there is patience but there are no validation images.
    """

    def __init__(
        self, settings: FitSettings, recipe: Recipe | None, history: Sequence[float | None], validated: bool
    ) -> None:
        if settings.patience is not None and not validated:
            raise RepulseError("fit.patience needs validation images: give --data.validation 0.1, or no patience")
        share = min(float(getattr(recipe, "delay", 0.0)) + float(getattr(recipe, "warmup", 0.0)), 1.0)
        self.patience, self.first = settings.patience, ceil(share * settings.epochs)
        self.done, self.best, self.best_epoch = 0, -1.0, self.first
        for accuracy in history:
            self.after_epoch(accuracy)

    def after_epoch(self, accuracy: float | None) -> None:
        """Note an epoch's validation accuracy, in [0, 1]."""
        self.done += 1
        if accuracy is not None and self.done > self.first and accuracy > self.best:
            self.best, self.best_epoch = accuracy, self.done

    @property
    def is_over(self) -> bool:
        """Whether no epoch of the last so many was better than one before."""
        return self.patience is not None and self.done - self.best_epoch >= self.patience

    @property
    def words(self) -> str:
        """What to say then."""
        return (
            f"stopped after epoch {self.done}: validation accuracy is best at epoch {self.best_epoch} "
            f"({100 * self.best:.1f} %; --checkpoint best), and fit.patience is {self.patience}"
        )
