"""What proves an answer: one method for each reason why a network cannot change its mind nearby."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from repulse.attacks import Norm
from repulse.attacks.attack import checked_logits
from repulse.certification.embedding_error import embedding_error, in_double
from repulse.certification.linf_bound import LinfBound, linf_bound
from repulse.certification.lipschitz_bound import LipschitzBound, lipschitz_bound
from repulse.certification.radii import certified_radius
from repulse.certification.record import LayerRecord, LipschitzRecord, SmoothingRecord
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import ABSTAINED, Smoothing, smooth
from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
from repulse.evaluation.bench import Progress
from repulse.evaluation.journal import Journal, Part
from repulse.models import PrototypeClassifier
from repulse.models.readouts import margin_of

# Images whose smoothing is kept on disk together: seconds to minutes of work.
_KEPT_TOGETHER = 10


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the images that it is certified on."""

    model: nn.Module
    images: Float[Tensor, "N *shape"]
    labels: Int64[Tensor, "N"]
    ids: Int64[Tensor, "N"]
    device: torch.device
    batch_size: int
    seed: int
    journal: Journal
    progress: Progress


@dataclass(frozen=True, eq=False)
class Proved:
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


Proof = Callable[[Subject, CertificationSettings], Proved]
Method = Callable[[nn.Module, tuple[int, ...]], Proof]
"""From a model and the shape of an image to the proof that it admits; raises RepulseError if it admits none."""

METHODS: Registry[Method] = Registry("method")

# In this order `auto` asks. Smoothing certifies another classifier than the model, so it is taken only by name.
_AUTOMATIC = ("linf-distance", "lipschitz")


def find_proof(name: str, model: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, Proof]:
    """The method of that name and its proof; for `auto` the first that the network was built for.

    Raises:
        RepulseError: if the model doesn't admit the method, or `auto` finds none.
    """
    if name != "auto":
        return name, METHODS[name](model, image_shape)
    why: dict[str, list[str]] = {}
    for each in _AUTOMATIC:
        try:
            return each, METHODS[each](model, image_shape)
        except RepulseError as error:
            why.setdefault(str(error), []).append(each)
    reasons = "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in why.items())
    raise RepulseError(
        f"nothing built into this model proves anything ({reasons}); any model can be smoothed, which certifies what "
        "it answers under noise: --method smoothing"
    )


@METHODS.register("linf-distance")
def linf_distance(model: nn.Module, image_shape: tuple[int, ...]) -> Proof:
    """L-inf-distance networks: 1-Lipschitz in L-inf by construction (Zhang et al. 2021, 2022)."""
    classifier = _with_prototypes(model)
    margin_of(classifier.readout, "linf")
    bound = linf_bound(classifier, image_shape)

    def prove(subject: Subject, settings: CertificationSettings) -> Proved:  # noqa: ARG001
        return _by_constant(subject, classifier, "linf", bound, lambda x: bound.rounding)  # noqa: ARG005

    return prove


@METHODS.register("lipschitz")
def lipschitz(model: nn.Module, image_shape: tuple[int, ...]) -> Proof:
    """Networks whose every layer stretches L2 distances by no more than a constant that is verified here."""
    classifier = _with_prototypes(model)
    bound = lipschitz_bound(classifier, image_shape)

    def prove(subject: Subject, settings: CertificationSettings) -> Proved:  # noqa: ARG001
        # Made once: orthogonal layers are computed anew by every copy.
        exact = in_double(classifier)
        return _by_constant(subject, classifier, "l2", bound, lambda x: embedding_error(classifier, x, exact))

    return prove


@METHODS.register("smoothing")
def smoothing(model: nn.Module, image_shape: tuple[int, ...]) -> Proof:  # noqa: ARG001
    """Any model: its answers under Gaussian noise (Cohen et al. 2019); see `repulse.certification.smoothing`."""
    return _by_smoothing


def _by_smoothing(subject: Subject, settings: CertificationSettings) -> Proved:
    sigma = Smoothing().sigma if settings.sigma is None else settings.sigma
    how = Smoothing(sigma, settings.n0, settings.n, settings.alpha)
    parts = torch.split(torch.arange(len(subject.images)), _KEPT_TOGETHER)

    def work(index: int) -> Part:
        rows = parts[index]
        found = smooth(
            subject.model,
            subject.images[rows].to(subject.device),
            how,
            ids=subject.ids[rows],
            seed=subject.seed,
            batch_size=subject.batch_size,
        )
        return {"prediction": found.prediction, "count": found.count, "radius": found.radius}

    def told(index: int) -> None:
        subject.progress("smoothing", int(parts[index][-1]) + 1, len(subject.images))

    done = subject.journal.each("smoothing", len(parts), work, told)
    prediction = torch.cat([part["prediction"] for part in done])
    return Proved(
        "l2",
        prediction,
        torch.cat([part["radius"] for part in done]),
        smoothing=SmoothingRecord(
            sigma=how.sigma,
            n0=how.n0,
            n=how.n,
            alpha=how.alpha,
            abstained=(prediction == ABSTAINED).double().mean().item(),
        ),
        count=torch.cat([part["count"] for part in done]),
    )


def _with_prototypes(model: nn.Module) -> PrototypeClassifier:
    if not isinstance(model, PrototypeClassifier):
        raise RepulseError(f"a {type(model).__name__} has no embedding and no prototypes to measure a margin between")
    return model


def _by_constant(
    subject: Subject,
    model: PrototypeClassifier,
    norm: Norm,
    bound: LipschitzBound | LinfBound,
    rounding: Callable[[Tensor], float],
) -> Proved:
    """An answer cannot change before the embedding has gone from where it is to the next prototype's region.

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
        with torch.inference_mode():
            z = model.embed(x)
            logits = checked_logits(model.classify(z), subject.labels[rows].to(subject.device))
        # Left inference mode by a copy.
        embeddings.append(z.cpu().clone())
        answers.append(logits.argmax(1).cpu().clone())
        error = max(error, rounding(x))
        subject.progress("embedding", int(rows[-1]) + 1, len(subject.images))
    prediction = torch.cat(answers)
    radii = certified_radius(
        torch.cat(embeddings),
        model.prototypes.cpu(),
        prediction,
        readout=model.readout,
        norm=norm,
        lipschitz=bound.constant,
        error=error,
    )
    layers = (LayerRecord(name=each.name, kind=each.kind, lower=each.lower, upper=each.upper) for each in bound.layers)
    return Proved(
        norm,
        prediction,
        radii,
        slack=2 * error / bound.constant,
        lipschitz=LipschitzRecord(constant=bound.constant, layers=tuple(layers)),
    )
