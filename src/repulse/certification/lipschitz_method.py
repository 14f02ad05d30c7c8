"""Method `lipschitz`: networks whose every layer stretches L2 distances by no more than a constant verified here."""

from __future__ import annotations

from torch import nn

from repulse.certification.embedding_error import embedding_error, in_double
from repulse.certification.lipschitz_bound import lipschitz_bound
from repulse.certification.margins_method import prove_by_margins
from repulse.certification.methods import METHODS, Certificates, Method, with_prototypes
from repulse.certification.settings import CertificationSettings
from repulse.subject import Subject


@METHODS.register("lipschitz")
class LipschitzMethod(Method):
    """The verified constant of the network, and the margins of its readout, in L2."""

    automatic = True

    def __init__(self, model: nn.Module, image_shape: tuple[int, ...]) -> None:
        self.model = with_prototypes(model)
        self.bound = lipschitz_bound(self.model, image_shape)

    def prove(self, subject: Subject, settings: CertificationSettings) -> Certificates:  # noqa: ARG002
        """A radius for each image."""
        # Made once: orthogonal layers are computed anew by every copy.
        exact = in_double(self.model)
        return prove_by_margins(subject, self.model, "l2", self.bound, lambda x: embedding_error(self.model, x, exact))
