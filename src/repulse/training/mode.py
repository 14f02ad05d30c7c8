"""Looking at a model in the middle of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in evaluation mode; afterwards it is in the mode it was in before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
