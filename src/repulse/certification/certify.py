"""Prove how far the answers of a model hold, and attack the proofs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks import Ensemble, Norm, Threat, ensemble
from repulse.attacks.attack import attackable, check_inputs
from repulse.attacks.ensemble import adaptive
from repulse.attacks.folding import folded
from repulse.attacks.prototype_objectives import has_distances
from repulse.certification.proofs import Proof, Proved, Subject, find_proof
from repulse.certification.record import (
    CertificateRecord,
    CertifiedPoint,
    Method,
    SoundnessRecord,
    certified_accuracy,
    save_certificate,
)
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import ABSTAINED, SmoothedModel, Smoothing, smoothed_prediction
from repulse.certification.soundness import SPACING, Siege, Victim
from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.evaluation.bench import Progress, device_of, image_ids
from repulse.evaluation.journal import Journal
from repulse.evaluation.protocol import About, identity_of, model_record
from repulse.evaluation.record import DataRecord

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

    def save(self, folder: Path) -> None:
        """Write both to a folder.

        Raises:
            RepulseError: if it cannot be written.
        """
        save_certificate(folder, self.record, self.outcomes)


def certify(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    settings: CertificationSettings | None = None,
    *,
    about: About | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
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
        model: any module from images in [0, 1] to logits (N, n); used in evaluation mode, on its own device.
        images: clean images, of any shape, pixels in [0, 1].
        labels: true classes.
        settings: method, radii, and attack.
        about: names for the record.
        progress: told after each batch.
        folder: where to write the certification. What is done is kept there, so that one that was killed goes on when
            it is called again, and processes under `torchrun` share the work. None: nothing is written.

    Returns:
        The record and the outcomes of all images. Whether it is sound is for the caller to look at: `record.sound`.

    Raises:
        RepulseError: if images, labels or logits are impossible, the method does not fit the model, `auto` finds none,
            or a setting would do nothing.
    """
    settings = settings or CertificationSettings()
    method, prove = begin(model, tuple(images.shape[1:]), settings)
    return carry_out(
        method,
        prove,
        model,
        images,
        labels,
        settings,
        about=about or About(),
        progress=progress,
        folder=folder,
    )


def begin(
    model: nn.Module, image_shape: tuple[int, ...], settings: CertificationSettings, *, smooth_others: bool = False
) -> tuple[str, Proof]:
    """The method that `certify` would take, and what it proves with; for callers that must know it before.

    Args:
        model: the model.
        image_shape: of one image.
        settings: the method, and what must go with it.
        smooth_others: whether `auto` smooths a model that was not built to prove anything, instead of refusing it.

    Raises:
        RepulseError: as `certify` says.
    """
    # Before the method is looked for, which may take long.
    _check_radii(settings)
    with attackable(model):
        try:
            method, prove = find_proof(settings.method, model, image_shape)
        except RepulseError:
            if not smooth_others or settings.method != "auto":
                raise
            method, prove = find_proof("smoothing", model, image_shape)
    _check_not_idle(settings, method)
    return method, prove


def carry_out(
    method: str,
    prove: Proof,
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    settings: CertificationSettings,
    *,
    about: About,
    progress: Progress | None,
    folder: Path | None,
) -> Certification:
    """What `certify` does once `begin` has found a method."""
    started = time.perf_counter()
    if len(images) == 0:
        raise RepulseError("there are no images to certify")
    images, labels = images.detach().cpu(), labels.cpu()
    check_inputs(images, labels, Threat("l2", 0.0))
    described, data = model_record(model, about), _data_record(images, labels, about)
    device = device_of(model, images)
    who = identity_of(model, described, data, settings, about, images, labels, device)
    journal = Journal(None if folder is None else folder / "progress", who)
    subject = Subject(
        model,
        images,
        labels,
        image_ids(images),
        device,
        settings.batch_size or (100 if device.type == "cpu" else 500),
        settings.seed,
        journal,
        progress or _silent,
    )
    with attackable(model):
        proved = prove(subject, settings)
        right = proved.prediction == labels
        radius = torch.where(right, proved.radius, 0.0)
        tensors = {"label": labels.int(), "prediction": proved.prediction.int(), "radius": radius}
        if proved.count is not None:
            tensors["count"] = proved.count
        radii = tuple(sorted(set(settings.radii))) or USUAL_RADII[proved.norm]
        certified = [certified_accuracy(radius, each) for each in radii]
        attacked: list[float | None] = [None] * len(radii)
        soundness = None
        if settings.attack:
            soundness, found = _attack(subject, proved, right, radius, radii, settings)
            tensors |= found
            attacked = found["robust"].double().mean(0).tolist()
    record = CertificateRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=described,
        data=data,
        norm=proved.norm,
        method=cast(Method, method),
        slack=proved.slack,
        lipschitz=proved.lipschitz,
        smoothing=proved.smoothing,
        natural_accuracy=right.double().mean().item(),
        points=tuple(
            CertifiedPoint(radius=at, certified=low, attacked=high)
            for at, low, high in zip(radii, certified, attacked, strict=True)
        ),
        soundness=soundness,
        seed=settings.seed,
        seconds=time.perf_counter() - started,
        environment={**environment(), "command": about.command},
    )
    certification = Certification(record, tensors)
    if folder is not None and journal.rank == 0:
        certification.save(folder)
    journal.close()
    return certification


def _attack(
    subject: Subject,
    proved: Proved,
    right: Tensor,
    radius: Tensor,
    radii: tuple[float, ...],
    settings: CertificationSettings,
) -> tuple[SoundnessRecord, dict[str, Tensor]]:
    """Attack every image at its own radius, then those without a certificate at each radius of the table."""
    started = time.perf_counter()
    members = _ensemble(settings.ensemble, subject.model, smoothed=proved.smoothing is not None)
    siege = Siege(
        _victim(subject, proved, settings),
        subject.images,
        subject.labels,
        subject.ids,
        norm=proved.norm,
        ensemble=members,
        device=subject.device,
        seed=subject.seed,
        batch_size=subject.batch_size,
        journal=subject.journal,
        progress=subject.progress,
    )
    broken = siege.at_own_radius(radius)
    robust = []
    for at in radii:
        # Within its radius an image is proved, and was attacked above.
        robust.append(right & ~siege.at(at, right & (radius <= at)))
    soundness = SoundnessRecord(
        attack=settings.ensemble,
        members=("FMN, minimum norm", *(member.label for member in members.members)),
        images=int((radius > 0).sum()),
        spacing=SPACING,
        broken=tuple(broken.nonzero().flatten().tolist()),
        forward_passes=siege.forward_passes,
        backward_passes=siege.backward_passes,
        seconds=time.perf_counter() - started,
    )
    found = {
        "broken": broken.to(torch.uint8),
        "broken/distance": torch.where(broken, siege.nearest, torch.inf),
        "robust": torch.stack(robust, 1).to(torch.uint8),
    }
    return soundness, found


def _victim(subject: Subject, proved: Proved, settings: CertificationSettings) -> Victim:
    """The classifier that was certified, as attacks see it, on a copy that is faster, and as it answers."""
    seen = folded(subject.model, subject.images[: subject.batch_size].to(subject.device))
    if proved.smoothing is None:

        def answers_wrong(images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG001
            with torch.inference_mode():
                wrong: Tensor = subject.model(images).argmax(1) != labels
            return wrong.clone()

        return Victim(seen, answers_wrong, itself=None if seen is subject.model else subject.model)
    smoothing = Smoothing(proved.smoothing.sigma, proved.smoothing.n0, proved.smoothing.n, proved.smoothing.alpha)

    def votes_wrong(images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        found = smoothed_prediction(subject.model, images, smoothing, ids=ids, seed=subject.seed)
        return (found != labels.cpu()) & (found != ABSTAINED)

    shape = tuple(subject.images.shape[1:])
    # Votes differ from what attacks see by more than rounding, so what they deny is not sought again.
    model = SmoothedModel(seen, smoothing, shape, draws=settings.draws, seed=subject.seed)
    return Victim(model.to(subject.device), votes_wrong, outwards=True)


def _ensemble(name: str, model: nn.Module, *, smoothed: bool) -> Ensemble:
    return adaptive(prototypes=not smoothed and has_distances(model)) if name == "adaptive" else ensemble(name)


def _check_radii(settings: CertificationSettings) -> None:
    if any(not 0 <= radius < float("inf") for radius in settings.radii):
        raise RepulseError(f"radii must be finite numbers, not negative, got {list(settings.radii)}")


def _check_not_idle(settings: CertificationSettings, method: str) -> None:
    """Settings that would do nothing are errors."""
    idle = {} if method == "smoothing" else dict.fromkeys(_OF_SMOOTHING, "without method smoothing")
    idle |= {} if settings.attack else dict.fromkeys(("ensemble", "draws"), "without attack")
    for name, why in idle.items():
        if getattr(settings, name) != CertificationSettings.model_fields[name].default:
            raise RepulseError(f"{name} means nothing {why}")


def _data_record(images: Tensor, labels: Tensor, about: About) -> DataRecord:
    return DataRecord(
        name=about.data,
        split=about.split,
        count=len(images),
        image_shape=tuple(images.shape[1:]),
        class_names=about.class_names,
        sha256=sha256_of(images, labels),
    )


def _silent(stage: str, done: int, of: int) -> None:
    """Nobody watches."""
