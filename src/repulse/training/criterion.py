"""Prototypes and adversarial images in a training loop of one's own.

Twelve lines of PyTorch train any network on prototypes:

    prototypes = repulse.make_prototypes("simplex", classes, dimension)
    criterion = repulse.PrototypeLoss(prototypes)
    for x, y in loader:
        x = repulse.perturb(network, x, y, "n-fgsm", criterion, eps=8 / 255)  # leave out for plain training
        loss = criterion(network(x), y)
        ...
    predicted = criterion.logits(network(x)).argmax(1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.models.readouts import READOUTS
from repulse.prototypes import Prototypes
from repulse.training.loss import LOSSES, Loss
from repulse.training.recipe import RECIPES, AdversarialRecipe, ModelInTraining, Task


class PrototypeLoss(nn.Module):
    """A loss that pulls embeddings to the prototypes of their classes: `criterion(z, y)`.

    It moves with `.to`, keeps its prototypes in its state dict, and computes in single precision under autocast. With
    `learn_prototypes` they are a parameter: give `criterion.parameters()` to the optimiser.

    Args:
        prototypes: one row per class, (n, d); from `make_prototypes`, or any tensor.
        loss: a name in `LOSSES`, or a loss.
        readout: how embeddings become logits, a name in `READOUTS`: `cosine`, `linear`, `dot`, `l2`, `linf`, `code`.
        temperature: divides the logits; positive.
        learn_prototypes: train the prototypes too.
        reduction: `mean` or `sum` over the batch, `none` for one value per example, (N,); None: the loss's own.
        settings: those of the named loss, such as `label_smoothing` or `offset`.

    Raises:
        RepulseError: if a name is unknown, or a setting is unknown or impossible; when called, if the shapes of
            embeddings and prototypes don't fit.
    """

    prototypes: Tensor

    def __init__(
        self,
        prototypes: Prototypes | Tensor,
        loss: str | Loss = "cosine",
        *,
        readout: str = "cosine",
        temperature: float = 0.1,
        learn_prototypes: bool = False,
        reduction: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise RepulseError(f"temperature must be positive, got {temperature}")
        if reduction not in (None, "mean", "sum", "none"):
            raise RepulseError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        points = prototypes.points if isinstance(prototypes, Prototypes) else prototypes
        points = points.detach().clone().float()
        if learn_prototypes:
            self.register_parameter("prototypes", nn.Parameter(points))
        else:
            self.register_buffer("prototypes", points)
        self.loss = LOSSES.make({"name": loss, **settings}) if isinstance(loss, str) else loss
        self.readout, self.temperature = readout, float(temperature)
        self.reduction = self.loss.reduction if reduction is None else reduction
        self._readout = READOUTS[readout]()

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of embeddings (N, d) with labels (N,) of any whole numbers: a scalar, or (N,) without reduction."""
        values = self.per_example(z, y)
        return values if self.reduction == "none" else values.mean() if self.reduction == "mean" else values.sum()

    def per_example(self, z: Tensor, y: Tensor) -> Tensor:
        """One value for each embedding, (N,)."""
        with torch.autocast(z.device.type, enabled=False):
            return self.loss.per_example(self._checked(z), y.long(), self)

    def logits(self, z: Tensor) -> Tensor:
        """The logits of embeddings, (N, n): the largest is the class."""
        with torch.autocast(z.device.type, enabled=False):
            return self.classify(self._checked(z))

    def classify(self, z: Tensor) -> Tensor:
        """As `logits`, for losses, which have checked `z`."""
        return self._readout.logits(z, self.prototypes.to(z.dtype)) / self.temperature

    def extra_repr(self) -> str:
        """Classes, dimension, loss, readout, temperature, reduction."""
        n, d = self.prototypes.shape
        return (
            f"classes={n}, dimension={d}, loss={self.loss!r}, readout={self.readout!r}, "
            f"temperature={self.temperature:g}, reduction={self.reduction!r}"
        )

    def _checked(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.prototypes.shape[1]:
            raise RepulseError(
                f"embeddings must have shape (N, {self.prototypes.shape[1]}), the prototypes' dimension; "
                f"got {tuple(z.shape)}"
            )
        return z if z.dtype in (torch.float32, torch.float64) else z.float()


def perturb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: str | AdversarialRecipe = "n-fgsm",
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    **settings: Any,
) -> Tensor:
    """Adversarial images for a training step of one's own, as a recipe makes them.

    No parameter gathers gradients. The model stays in the mode that it is in, so batch norm sees these passes as it
    does in the sources. Random starts come from PyTorch's global generator.

    Args:
        model: images in [0, 1] to logits, or to what the criterion takes.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        recipe: `fgsm-rs`, `n-fgsm`, `pgd`, `trades`, `margin-step`, `fast-trades`, or such a recipe as an object.
        criterion: what the images climb: a `PrototypeLoss`, or any loss of the model's outputs and labels; None:
            cross-entropy.
        settings: those of the named recipe: `eps`, `steps`, `step_size`, `norm`, ...

    Returns:
        The moved images, without a graph.

    Raises:
        RepulseError: if the recipe is unknown or moves no images, or a setting is unknown or impossible.
    """
    made = RECIPES.make({"name": recipe, **settings}) if isinstance(recipe, str) else recipe
    if not isinstance(made, AdversarialRecipe):
        raise RepulseError(f"recipe {made.name!r} moves no images in a ball; take one such as 'n-fgsm' or 'pgd'")
    loss = nn.CrossEntropyLoss(reduction="none") if criterion is None else criterion
    own = loss if isinstance(loss, PrototypeLoss) else None

    def per_example(z: Tensor, labels: Tensor, _: object) -> Tensor:
        values = loss(z, labels) if own is None else own.per_example(z, labels)
        return values if values.ndim else values.expand(len(z))

    with torch.enable_grad():
        task = Task(ModelInTraining(model, None if own is None else own.logits), per_example)
        return made.perturb(task, x.detach(), y.long())
