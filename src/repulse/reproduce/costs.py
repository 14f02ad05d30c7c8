"""What training a cell cost: seconds as they were, and passes as they are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.config.run import RunConfig, merge
from repulse.data import Augment, ImageSource
from repulse.models import PrototypeClassifier
from repulse.training import fit, make_fabric, make_loss, make_recipe, read_metrics

# Batches that are trained on to count passes: enough for a rate, and for recipes that change from batch to batch.
COUNTED_BATCHES, COUNTED_AT_ONCE = 2, 16


class Counter:
    """Images that went through a module, forward and backward, each counted every time."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Count within this context. A gradient of a gradient passes backward once more."""

        def seen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.forward += len(output)
            if output.requires_grad:
                output.register_hook(self._backward)  # type: ignore[no-untyped-call]

        handle = module.register_forward_hook(seen)
        try:
            yield
        finally:
            handle.remove()

    def _backward(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def count_passes(config: RunConfig, model: PrototypeClassifier, images: ImageSource) -> tuple[float, float]:
    """Forward and backward passes per image of an epoch, counted while a few batches are trained on.

    The loop is the one that trains runs, so recipes that use a batch several times are counted as they are. A penalty
    on a gradient counts two passes backward, of which the second is about twice as long.

    Args:
        config: of a run.
        model: a model of that run; it is trained, and so spoilt.
        images: to train on.
    """
    batch = min(config.fit.batch_size, COUNTED_AT_ONCE, len(images))
    some = images.take(torch.arange(min(COUNTED_BATCHES * batch, len(images))))
    changes = {"epochs": 1, "compile": False, "batch_size": batch, "precision": "32-true", "accelerator": "cpu"}
    settings = merge(config, {"fit": {**changes, "devices": "1", "nodes": 1}}, "count").fit
    counter = Counter()
    with counter.watch(model.backbone):
        fit(
            model,
            make_loss(**config.loss.model_dump()),
            some,
            None,
            settings,
            fabric=make_fabric(settings),
            recipe=make_recipe(config.recipe),
            augment=Augment(**config.augment.model_dump()),
            seed=config.seed,
        )
    used = len(some) // batch * batch
    return counter.forward / used, counter.backward / used


def cost(folder: Path, config: RunConfig, model: PrototypeClassifier, images: ImageSource) -> dict[str, float]:
    """What a finished run cost: `seconds` and `epochs` from its metrics, passes per image of an epoch as counted.

    Args:
        folder: of the run.
        config: of the run.
        model: its model, which is spoilt.
        images: its training images.
    """
    metrics = read_metrics(folder)
    forward, backward = count_passes(config, model, images)
    return {
        "seconds": sum(row.seconds for row in metrics),
        "epochs": len(metrics),
        "images": round(sum(row.seconds * row.images_per_second for row in metrics) / max(len(metrics), 1)),
        "forward": forward,
        "backward": backward,
    }
