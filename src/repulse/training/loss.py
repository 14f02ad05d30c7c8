"""What a loss is: embeddings `z` (N, d), labels `y` (N,) and the head of the classifier give one value per example.

How the values of a batch become one number is part of a loss's definition in its paper, so it is kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.settings import Choice, Choices

Reduction = Literal["mean", "sum"]


@runtime_checkable
class Head(Protocol):
    """What a loss may ask of a classifier: its prototypes (n, d), and logits for embeddings."""

    prototypes: Tensor

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""


Embeddings = Float[Tensor, "N d"]
Labels = Int64[Tensor, "N"]
Values = Float[Tensor, "N"]
PerExample = Callable[[Embeddings, Labels, Head], Values]


class Loss(Choice):
    """A loss with its settings: a subclass has a field for each of them, and writes `per_example`."""

    reduction: ClassVar[Reduction] = "mean"

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """One value for each example.

        Args:
            z: embeddings.
            y: labels.
            head: the classifier, for its prototypes and its logits.
        """
        raise NotImplementedError


LOSSES: Choices[Loss] = Choices("loss")
