"""Method `smoothing`: any model, by its answers under Gaussian noise (Cohen et al. 2019)."""

from __future__ import annotations

import torch
from torch import nn

from repulse.certification.methods import METHODS, Certificates, Method
from repulse.certification.record import SmoothingRecord
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import ABSTAINED, Smoothing, smooth
from repulse.subject import Subject
from repulse.subject.journal import BatchResult

# Images that are kept on disk together: seconds to minutes of work.
_KEPT_TOGETHER = 10


@METHODS.register("smoothing")
class SmoothingMethod(Method):
    """The smoothed classifier, with confidence `1 - alpha` per image; see `repulse.certification.smoothing`."""

    automatic = False

    def __init__(self, model: nn.Module, image_shape: tuple[int, ...]) -> None:  # noqa: ARG002
        self.model = model

    def prove(self, subject: Subject, settings: CertificationSettings) -> Certificates:
        """A radius for each image."""
        sigma = Smoothing().sigma if settings.sigma is None else settings.sigma
        how = Smoothing(sigma, settings.n0, settings.n, settings.alpha)
        parts = torch.split(torch.arange(len(subject.images)), _KEPT_TOGETHER)

        def work(index: int) -> BatchResult:
            rows = parts[index]
            found = smooth(
                self.model,
                subject.images[rows].to(subject.device),
                how,
                ids=subject.ids[rows],
                seed=subject.seed,
                batch_size=subject.batch_size,
            )
            return {"prediction": found.prediction, "count": found.count, "radius": found.radius}

        def report(index: int) -> None:
            subject.progress("smoothing", int(parts[index][-1]) + 1, len(subject.images))

        done = subject.journal.each("smoothing", len(parts), work, report)
        prediction = torch.cat([part["prediction"] for part in done])
        record = SmoothingRecord(
            sigma=how.sigma,
            n0=how.n0,
            n=how.n,
            alpha=how.alpha,
            abstained=(prediction == ABSTAINED).double().mean().item(),
        )
        radius = torch.cat([part["radius"] for part in done])
        count = torch.cat([part["count"] for part in done])
        return Certificates("l2", prediction, radius, smoothing=record, count=count)
