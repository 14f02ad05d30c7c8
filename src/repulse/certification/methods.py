"""What proves an answer: one method for each reason why a network cannot change its mind nearby."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float64, Int64
from torch import Tensor, nn

from repulse.attacks import Norm
from repulse.certification.record import LipschitzRecord, SmoothingRecord
from repulse.certification.settings import CertificationSettings
from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
from repulse.models import PrototypeClassifier
from repulse.subject import Subject


@dataclass(frozen=True, eq=False)
class Certificates:
    """What was proved of each image."""

    norm: Norm
    prediction: Int64[Tensor, "N"]
    """The class that the certified classifier gives; -1 where it abstained."""
    radius: Float64[Tensor, "N"]
    """Within this radius the prediction cannot change; rounding is taken off already, and it is never negative."""
    slack: float = 0.0
    """What was taken off for the rounding of embeddings, in the norm."""
    lipschitz: LipschitzRecord | None = None
    smoothing: SmoothingRecord | None = None
    count: Int64[Tensor, "N"] | None = None


class Method(ABC):
    """A way to prove an answer, for one model.

    Args:
        model: any module from images in [0, 1] to logits.
        image_shape: of one image.

    Raises:
        RepulseError: if the model does not admit it.
    """

    automatic: ClassVar[bool]
    """Whether `auto` may take it: not if it certifies another classifier than the model itself."""

    @abstractmethod
    def __init__(self, model: nn.Module, image_shape: tuple[int, ...]) -> None: ...

    @abstractmethod
    def prove(self, subject: Subject, settings: CertificationSettings) -> Certificates:
        """A radius for each image of a subject at work."""


METHODS: Registry[type[Method]] = Registry("method")


def find_method(name: str, model: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, Method]:
    """The method of that name; for `auto` the first that the network was built for.

    Raises:
        RepulseError: if the model doesn't admit the method, or `auto` finds none.
    """
    if name != "auto":
        return name, METHODS[name](model, image_shape)
    why: dict[str, list[str]] = {}
    for each, method in METHODS.items():
        if not method.automatic:
            continue
        try:
            return each, method(model, image_shape)
        except RepulseError as error:
            why.setdefault(str(error), []).append(each)
    reasons = "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in why.items())
    raise RepulseError(
        f"nothing built into this model proves anything ({reasons}); any model can be smoothed, which certifies what "
        "it answers under noise: --method smoothing"
    )


def with_prototypes(model: nn.Module) -> PrototypeClassifier:
    """The model, if it has an embedding and prototypes.

    Raises:
        RepulseError: if not.
    """
    if not isinstance(model, PrototypeClassifier):
        raise RepulseError(f"a {type(model).__name__} has no embedding and no prototypes to measure a margin between")
    return model
