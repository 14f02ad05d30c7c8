"""Method `linf-distance`: networks that are 1-Lipschitz in L-inf by construction (Zhang et al. 2021, 2022)."""

from __future__ import annotations

from torch import nn

from repulse.certification.linf_bound import linf_bound
from repulse.certification.margins_method import prove_by_margins
from repulse.certification.methods import METHODS, Certificates, Method, with_prototypes
from repulse.certification.settings import CertificationSettings
from repulse.models.readouts import margin_of
from repulse.subject import Subject


@METHODS.register("linf-distance")
class LinfDistanceMethod(Method):
    """The verified constant of the network, and the margins of its readout, in L-inf."""

    automatic = True

    def __init__(self, model: nn.Module, image_shape: tuple[int, ...]) -> None:
        self.model = with_prototypes(model)
        # A readout without a margin is refused before the network is looked at.
        margin_of(self.model.readout, "linf")
        self.bound = linf_bound(self.model, image_shape)

    def prove(self, subject: Subject, settings: CertificationSettings) -> Certificates:  # noqa: ARG002
        """A radius for each image."""
        return prove_by_margins(subject, self.model, "linf", self.bound, lambda x: self.bound.rounding)  # noqa: ARG005
