"""What the Lipschitz methods share: an answer holds until the embedding has reached the next prototype's region."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repulse.attacks import Norm
from repulse.attacks.attack import checked_logits
from repulse.certification.linf_bound import LinfBound
from repulse.certification.lipschitz_bound import LipschitzBound
from repulse.certification.methods import Certificates
from repulse.certification.radii import certified_radius
from repulse.certification.record import LayerRecord, LipschitzRecord
from repulse.models import PrototypeClassifier
from repulse.subject import Subject


def prove_by_margins(
    subject: Subject,
    model: PrototypeClassifier,
    norm: Norm,
    bound: LipschitzBound | LinfBound,
    rounding: Callable[[Tensor], float],
) -> Certificates:
    """Radii from the margins of embeddings and a Lipschitz constant.

    Args:
        subject: the images.
        model: the classifier.
        norm: of pixels and embeddings.
        bound: by how much embeddings move at most when pixels do.
        rounding: by how much the embeddings of a batch may be off.
    """
    embeddings, answers, error = [], [], 0.0
    for rows in torch.split(torch.arange(len(subject.images)), subject.batch_size):
        x = subject.images[rows].to(subject.device)
        with torch.no_grad():
            z = model.embed(x)
            logits = checked_logits(model.classify(z), subject.labels[rows].to(subject.device))
        embeddings.append(z.cpu())
        answers.append(logits.argmax(1).cpu())
        error = max(error, rounding(x))
        subject.progress("embedding", int(rows[-1]) + 1, len(subject.images))
    prediction = torch.cat(answers)
    radius = certified_radius(
        torch.cat(embeddings),
        model.prototypes.cpu(),
        prediction,
        readout=model.readout,
        norm=norm,
        lipschitz=bound.constant,
        error=error,
    )
    layers = (LayerRecord(name=each.name, kind=each.kind, lower=each.lower, upper=each.upper) for each in bound.layers)
    return Certificates(
        norm,
        prediction,
        radius,
        slack=2 * error / bound.constant,
        lipschitz=LipschitzRecord(constant=bound.constant, layers=tuple(layers)),
    )
