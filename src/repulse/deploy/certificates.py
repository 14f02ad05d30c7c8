"""The radius that is proved of each answer, for networks that are built for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from repulse.attacks import Norm
from repulse.certification.embedding_error import embedding_error, in_double
from repulse.certification.linf_bound import linf_bound
from repulse.certification.lipschitz_bound import lipschitz_bound
from repulse.certification.radii import certified_radius
from repulse.common.errors import RepulseError
from repulse.models import PrototypeClassifier


@dataclass(frozen=True)
class Certificate:
    """From images, their embeddings and the answers to certified radii in pixels of [0, 1], in one norm."""

    norm: Norm
    radii: Callable[[Tensor, Tensor, Tensor], Tensor]


def find_certificate(model: PrototypeClassifier, image_shape: tuple[int, ...]) -> Certificate:
    """What a network was built to prove: a radius in L-inf, or in L2.

    Raises:
        RepulseError: if it was built for neither.
    """
    try:
        return _in_linf(model, image_shape)
    except RepulseError as in_linf:
        try:
            return _in_l2(model, image_shape)
        except RepulseError as in_l2:
            raise RepulseError(
                f"nothing built into this model proves its answers (in L2: {in_l2}; in L-inf: {in_linf}); train one "
                "with --preset certified-l2 or certified-linf, or smooth it: repulse certify --method smoothing"
            ) from in_l2


def _in_linf(model: PrototypeClassifier, image_shape: tuple[int, ...]) -> Certificate:
    bound = linf_bound(model, image_shape)

    def radii(x: Tensor, z: Tensor, answers: Tensor) -> Tensor:  # noqa: ARG001
        return _radii(model, z, answers, "linf", bound.constant, bound.rounding)

    return Certificate("linf", radii)


def _in_l2(model: PrototypeClassifier, image_shape: tuple[int, ...]) -> Certificate:
    bound = lipschitz_bound(model, image_shape)
    exact = in_double(model)

    def radii(x: Tensor, z: Tensor, answers: Tensor) -> Tensor:
        return _radii(model, z, answers, "l2", bound.constant, embedding_error(model, x, exact))

    return Certificate("l2", radii)


def _radii(
    model: PrototypeClassifier, z: Tensor, answers: Tensor, norm: Norm, lipschitz: float, error: float
) -> Tensor:
    return certified_radius(
        z, model.prototypes, answers, readout=model.readout, norm=norm, lipschitz=lipschitz, error=error
    )
