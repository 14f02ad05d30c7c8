"""Prove how far the answers of a model hold, and attack the proofs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from repulse.attacks import Norm, Threat
from repulse.attacks.attack import attackable, check_inputs, ordinary_autograd
from repulse.certification.methods import Method, find_method
from repulse.certification.record import (
    CertificateRecord,
    CertifiedPoint,
    MethodName,
    certified_accuracy,
    load_certificate,
    save_certificate,
)
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import Smoothing
from repulse.certification.soundness import attack_certificates, stages
from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode
from repulse.common.functions import as_module
from repulse.common.progress import expect
from repulse.common.progress import found as known
from repulse.common.run_files import CERTIFICATES
from repulse.common.settings import chosen
from repulse.common.units import in_255ths, in_percent, refuse_radius
from repulse.evaluation.checks import check_use
from repulse.evaluation.misuse import refuse_misuse, report_misuse
from repulse.evaluation.record import CheckRecord
from repulse.models.foreign.adapt import adapt_model
from repulse.subject import About, Progress, Subject
from repulse.subject.pairs import images_and_labels
from repulse.subject.subject import silent

USUAL_RADII: dict[Norm, tuple[float, ...]] = {
    "l2": (0.0, 36 / 255, 0.25, 72 / 255, 108 / 255, 0.5, 0.75, 1.0),
    "linf": (0.0, 2 / 255, 4 / 255, 8 / 255, 0.1),
}
"""The radii at which certified accuracy is published, by norm."""

_OF_SMOOTHING = ("sigma", "n", "n0", "alpha", "draws")


@dataclass(frozen=True, eq=False)
class Certification:
    """A record, and what was proved of every image behind it."""

    record: CertificateRecord
    outcomes: dict[str, Tensor] = field(repr=False)
    folder: Path | None = None
    """Where it is kept; None: nowhere yet."""

    def save(self, folder: str | Path) -> None:
        """Write both to a folder.

        Raises:
            RepulseError: if it cannot be written.
        """
        save_certificate(Path(folder), self.record, self.outcomes)


def certify(
    model: nn.Module | Callable[[Tensor], Any],
    images: Any,
    labels: Any = None,
    settings: CertificationSettings | None = None,
    *,
    about: About | None = None,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    **keywords: Any,
) -> Certification:
    """Prove for each image within which radius the model's answer cannot change, and count what is proved.

    How:

    - `lipschitz`: networks whose every layer has a Lipschitz constant that can be bounded, in L2. The constant is
      verified in float64, whatever the layers claim, and the verified one is used.
    - `linf-distance`: L-inf-distance networks, which are 1-Lipschitz in L-inf.
    - `smoothing`: any model, in L2; what is certified is then the smoothed classifier, see
      `repulse.certification.smoothing`, and it holds with confidence `1 - alpha` per image.
    - `auto`: the first of these that the network was built for. Smoothing is never taken without being asked for: it
      certifies another classifier than the model itself.

    With `settings.attack`, every certified image is attacked at its own radius, where nothing may be found; what is
    found makes the record unsound. Images that are not certified at a radius of the table are attacked at that radius:
    certified accuracy is a lower bound, attacked accuracy an upper one, and what lies between is unknown.

    Args:
        model: any module, or to smooth it any function, from images in [0, 1] to logits (N, n); used in evaluation
            mode, on its own device.
        images: clean images, of any shape, pixels in [0, 1], or whole numbers from 0 to 255: a tensor, a NumPy array
            or a list; or, without labels, a `DataLoader`, a `Dataset`, a data set of Hugging Face's, or the path of a
            folder.
        labels: true classes: whole numbers of any kind, (N,) or (N, 1), or one-hot rows (N, n).
        settings: method, radii, and attack.
        about: names for the record.
        progress: told after each batch.
        folder: where to write the certification. What is done is kept there, so that one that was killed goes on when
            it is called again, and processes under `torchrun` share the work. None: nothing is written.
        keywords: settings by their names, `method="smoothing", n=1000`, in place of `settings`.

    Returns:
        The record and the outcomes of all images. Whether it is sound is for the caller to look at: `record.sound`.

    Raises:
        RepulseError: if images, labels or logits are impossible, the method does not fit the model, `auto` finds none,
            or a setting would do nothing.
    """
    settings = chosen(CertificationSettings, settings, keywords, "certify")
    images, labels = images_and_labels(images, labels)
    subject = Subject(as_module(model), images, labels, about or About(), progress=progress or silent)
    return certify_subject(subject, settings, folder)


@ordinary_autograd
def certify_subject(
    subject: Subject,
    settings: CertificationSettings | None = None,
    folder: str | Path | None = None,
    *,
    stop_if_misused: bool = True,
) -> Certification:
    """Prove for each image of a subject within which radius the model's answer cannot change; see `certify`.

    A model that was trained elsewhere is smoothed by `auto`, if it was not built to prove anything. Without a sigma,
    smoothing takes the noise of the training, or else 0.25. What is done already is read, and what was interrupted goes
    on; another certification is never overwritten.

    Args:
        subject: the model and its images.
        settings: method, radii, and attack.
        folder: where to write the certification; None: in the subject's home, if it has one.
        stop_if_misused: prove nothing if a model that was trained elsewhere is not used as it was meant to be, for a
            certificate has no verdict to say so.

    Raises:
        RepulseError: as `certify` says; if the folder holds another certification; or because of misuse.
    """
    settings = settings or CertificationSettings()
    started = time.perf_counter()
    if len(subject.images) == 0:
        raise RepulseError("there are no images to certify")
    check_inputs(subject.images, subject.labels, Threat("l2", 0.0))
    used: tuple[CheckRecord, ...] = ()
    if subject.foreign and stop_if_misused:
        names, model = subject.about.class_names, adapt_model(subject.model)
        used = check_use(model, subject.images, subject.labels, device=subject.device, class_names=names)
        refuse_misuse(used, "proved")
    method, settings = _find_method(subject, settings)
    if settings.method == "smoothing":
        # The other methods look inside the model.
        subject = replace(subject, model=adapt_model(subject.model))
    subject = subject.at_work(
        settings,
        seed=settings.seed,
        batch_size=settings.batch_size,
        output=None if folder is None else Path(folder),
        kind=CERTIFICATES,
        name=_name(settings),
        more=str(len(subject.images)),
    )
    place = subject.folder
    if subject.finished and place is not None:
        return Certification(*load_certificate(place), place)
    report_misuse(subject, used)
    proving = {"smoothing": float(settings.n + settings.n0)} if settings.method == "smoothing" else {"embedding": 1.0}
    expect(
        subject.progress,
        {stage: cost * len(subject.images) for stage, cost in proving.items()}
        | stages(settings, settings.radii, len(subject.images)),
    )
    with attackable(subject.model):
        certificates = method.prove(subject, settings)
        for each in settings.radii:
            _refuse(subject, certificates.norm, each)
        right = certificates.prediction == subject.labels
        radius = torch.where(right, certificates.radius, 0.0)
        tensors = {
            "label": subject.labels.int(),
            "prediction": certificates.prediction.int(),
            "radius": radius,
        }
        if certificates.count is not None:
            tensors["count"] = certificates.count
        radii = tuple(sorted(set(settings.radii))) or USUAL_RADII[certificates.norm]
        certified = [certified_accuracy(radius, each) for each in radii]
        known(subject.progress, f"proved within {in_255ths(radii[-1])}: {in_percent(certified[-1])}")
        attacked: list[float | None] = [None] * len(radii)
        soundness = None
        if settings.attack:
            soundness, found = attack_certificates(subject, certificates, right, radius, radii, settings)
            tensors |= found
            attacked = found["robust"].double().mean(0).tolist()
    record = CertificateRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=subject.model_record,
        data=subject.data_record,
        norm=certificates.norm,
        method=cast(MethodName, settings.method),
        slack=certificates.slack,
        lipschitz=certificates.lipschitz,
        smoothing=certificates.smoothing,
        natural_accuracy=right.double().mean().item(),
        points=tuple(
            CertifiedPoint(radius=at, certified=low, attacked=high)
            for at, low, high in zip(radii, certified, attacked, strict=True)
        ),
        soundness=soundness,
        seed=settings.seed,
        seconds=time.perf_counter() - started,
        environment={**environment(), "command": subject.about.command},
    )
    certification = Certification(record, tensors, place)
    if place is not None and subject.journal.rank == 0:
        certification.save(place)
    subject.journal.close()
    return certification


def _find_method(subject: Subject, settings: CertificationSettings) -> tuple[Method, CertificationSettings]:
    """The method, and the settings with what was left open written down: asking for it by name is the same."""
    # Before the method is looked for, which may take long.
    if any(not 0 <= radius < float("inf") for radius in settings.radii):
        raise RepulseError(f"radii must be finite numbers, not negative, got {list(settings.radii)}")
    shape = tuple(subject.images.shape[1:])
    # Only that: a model with hooks is none that anything is known of.
    with evaluation_mode(subject.model):
        try:
            name, method = find_method(settings.method, subject.model, shape)
        except RepulseError:
            if not subject.foreign or settings.method != "auto":
                raise
            name, method = find_method("smoothing", subject.model, shape)
    _check_not_idle(settings, name)
    found: dict[str, object] = {"method": name}
    if name == "smoothing" and settings.sigma is None:
        found["sigma"] = subject.training_noise or Smoothing().sigma
    return method, settings.model_copy(update=found)


def _refuse(subject: Subject, norm: Norm, radius: float) -> None:
    try:
        refuse_radius(norm, radius)
    except ValueError as error:
        subject.journal.abandon()
        raise RepulseError(str(error)) from error


def _name(settings: CertificationSettings) -> str:
    """What a folder calls a certification: by its method, and the noise if there is some."""
    return f"smoothing-{settings.sigma:.4g}" if settings.method == "smoothing" else settings.method


def _check_not_idle(settings: CertificationSettings, method: str) -> None:
    """Settings that would do nothing are errors."""
    idle = {} if method == "smoothing" else dict.fromkeys(_OF_SMOOTHING, "without method smoothing")
    idle |= {} if settings.attack else dict.fromkeys(("ensemble", "draws"), "without attack")
    for name, why in idle.items():
        if getattr(settings, name) != CertificationSettings.model_fields[name].default:
            raise RepulseError(f"{name} means nothing {why}")
