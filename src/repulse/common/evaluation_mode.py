"""Looking at a model in the middle of something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in evaluation mode; afterwards every module is in the mode it was in before."""
    # A frozen TorchScript module has no `training` of its own.
    before = {module: module.training for module in model.modules() if hasattr(module, "training")}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
