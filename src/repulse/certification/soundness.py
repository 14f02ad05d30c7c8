"""Attack certificates: look inside the certified radius of every image for one that the model gets wrong.

A certificate is a claim about all images of a ball, so a single image inside it that fools the model refutes it. That
an attack finds none proves nothing; but wrong constants, wrong geometry and wrong code are found this way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from repulse.attacks import FMN, Ensemble, Norm, Threat, ensemble
from repulse.attacks.ensemble import adaptive
from repulse.attacks.folding import folded
from repulse.attacks.noise import Noise
from repulse.attacks.prototype_objectives import has_distances
from repulse.attacks.threat import column
from repulse.certification.methods import Certificates
from repulse.certification.record import SoundnessRecord
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import ABSTAINED, SmoothedModel, Smoothing, smoothed_prediction
from repulse.subject import Subject
from repulse.subject.identity import exact_words
from repulse.subject.journal import BatchResult

SPACING = 0.05
"""By how much at most, as a share, a certified radius is rounded down for attacks that take one radius for a batch."""

# About how many passes each ensemble spends on an image that it cannot fool.
_PASSES = {"quick": 500.0, "standard": 10_000.0, "adaptive": 15_000.0}

Judge = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(images (M, *shape), labels (M,), ids (M,)) -> (M,) bool`: whether the certified classifier is fooled."""


@dataclass(frozen=True, eq=False)
class CertifiedModel:
    """A certified classifier, as attacks see it and as it answers.

    Args:
        model: what attacks see, from images to logits; it may be a copy that computes the same faster.
        judge: what decides whether they succeeded; it must ask the classifier itself.
        outwards: whether what fools `model` is carried on to the edge of the ball before it is judged. The votes of a
            smoothed classifier part ways with what attacks see near the boundary, and agree further out.
        itself: the classifier, to be attacked where what fools `model` does not fool the judge; None: nothing is.
    """

    model: nn.Module
    judge: Judge
    outwards: bool = False
    itself: nn.Module | None = None


class CertificateAttack:
    """Attacks on the images of a certification; remembers the nearest image found that fools, for each.

    Attacks take one radius for a whole batch, and certified radii differ. So two things are done. A minimum-norm attack
    needs no radius: what it finds is compared with each image's own. Then the ensemble attacks images whose radii are
    alike together, at a radius that is rounded down by at most `SPACING`, to a grid that does not depend on the images.

    Distances of what is found are computed in float64 from the very pixels that the model saw: no tolerance is needed.

    Args:
        subject: the images, at work.
        certified: the classifier.
        norm: of the certificates.
        members: the attacks.
    """

    def __init__(self, subject: Subject, certified: CertifiedModel, norm: Norm, members: Ensemble) -> None:
        self.subject, self.certified, self.norm, self.ensemble = subject, certified, norm, members
        self.nearest = torch.full((len(subject.images),), torch.inf, dtype=torch.float64)
        """Distance of the nearest image found that fools the classifier; inf where none was."""
        self.forward_passes = self.backward_passes = 0

    def at_own_radius(self, radius: Float64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Attack every image that has a radius, inside it; returns where the certificate was broken."""
        rows = (radius > 0).nonzero().flatten()
        parts = torch.split(rows, self.subject.batch_size) if len(rows) else ()
        self._run(
            "minimum norm",
            exact_words((self.norm, radius)),
            parts,
            lambda part: self._search(part, lambda model, rows: self._minimum(model, rows, radius[rows])),
        )
        broken = self.nearest < radius
        floor = _rounded_down(radius, self.norm)
        self._within("certified radius", floor, (radius > 0) & ~broken & (floor > 0))
        return self.nearest < radius

    def at(self, eps: float, which: Bool[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Attack some images at one radius, but for those known to be fooled within it; returns who is fooled."""
        if eps > 0:
            every = torch.full((len(self.subject.images),), eps, dtype=torch.float64)
            self._within(_stage(eps), every, which & (self.nearest > eps))
        # An attack may put an image as far outside the ball as rounding does; that still counts as the ball.
        return self.nearest <= eps + Threat(self.norm, eps).tolerance if eps > 0 else torch.zeros_like(which)

    def _within(self, stage: str, eps: Float64[Tensor, "N"], which: Bool[Tensor, "N"]) -> None:
        """The ensemble, on images of equal eps together."""
        parts: list[Tensor] = []
        for value in sorted(set(eps[which].tolist())):
            parts += torch.split((which & (eps == value)).nonzero().flatten(), self.subject.batch_size)
        self._run(
            stage,
            exact_words((self.norm, self.ensemble, eps, which)),
            tuple(parts),
            lambda part: self._search(part, lambda model, rows: self._attacked(model, rows, float(eps[part[0]]))),
        )

    def _run(self, stage: str, key: str, parts: tuple[Tensor, ...], work: Callable[[Tensor], BatchResult]) -> None:
        total, ends = sum(map(len, parts)), torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        if parts:
            self.subject.progress(stage, 0, total)
        done = self.subject.journal.each(
            stage,
            len(parts),
            lambda index: work(parts[index]),
            lambda index: self.subject.progress(stage, ends[index], total),
            key=key,
        )
        for rows, part in zip(parts, done, strict=True):
            self.nearest[rows] = torch.minimum(self.nearest[rows], part["distance"])
            self.forward_passes += int(part["passes"][0])
            self.backward_passes += int(part["passes"][1])

    def _search(self, rows: Tensor, search: Callable[[nn.Module, Tensor], BatchResult]) -> BatchResult:
        """What a search finds on what attacks see; where that is denied, on the classifier itself."""
        part, itself = search(self.certified.model, rows), self.certified.itself
        denied = (part.pop("hit") & part["distance"].isinf()).nonzero().flatten()
        if itself is not None and len(denied):
            second = search(itself, rows[denied])
            part["distance"][denied] = second["distance"]
            part["passes"] = part["passes"] + second["passes"]
        return part

    def _minimum(self, model: nn.Module, rows: Tensor, radius: Float64[Tensor, "M"]) -> BatchResult:
        clean, labels, ids = self._batch(rows)
        found = FMN().smallest(model, clean, labels, Threat(self.norm, 0.0), Noise(self.subject.seed, ids))
        hit = found.distance.isfinite().cpu()
        if self.certified.outwards:
            hit &= found.distance.cpu() < radius
        return self._judged(found.images, clean, labels, ids, hit, radius, found.passes.total)

    def _attacked(self, model: nn.Module, rows: Tensor, eps: float) -> BatchResult:
        clean, labels, ids = self._batch(rows)
        result = self.ensemble(model, clean, labels, Threat(self.norm, eps), seed=self.subject.seed, ids=ids)
        edge = torch.full((len(rows),), eps, dtype=torch.float64)
        return self._judged(result.adversarial, clean, labels, ids, result.fooled.cpu(), edge, result.passes.total)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = self.subject.images[rows], self.subject.labels[rows]
        return images.to(self.subject.device), labels.to(self.subject.device), self.subject.ids[rows]

    def _judged(
        self,
        images: Tensor,
        clean: Tensor,
        labels: Tensor,
        ids: Tensor,
        hit: Bool[Tensor, "M"],
        edge: Float64[Tensor, "M"],
        passes: tuple[int, int],
    ) -> BatchResult:
        """Which images a search says that it won, and how far away each is that fools the classifier, inf if none."""
        distance = torch.full((len(images),), torch.inf, dtype=torch.float64)
        rows = hit.nonzero().flatten()
        if len(rows):
            on = rows.to(self.subject.device)
            found, beside = images[on].detach(), clean[on]
            if self.certified.outwards:
                found = _carried_on(found, beside, edge[rows], self.norm)
            fooled = self.certified.judge(found, labels[on], ids[rows]).cpu()
            distance[rows] = torch.where(fooled, _exact_distance(found, beside, self.norm), torch.inf)
        return {"hit": hit, "distance": distance, "passes": torch.tensor(passes)}


def stages(settings: CertificationSettings, radii: tuple[float, ...], images: int) -> dict[str, float]:
    """What attacks on certificates go through, with about how many passes: for a progress bar, never for a figure."""
    if not settings.attack:
        return {}
    each = images * _PASSES[settings.ensemble] * (settings.draws if settings.method == "smoothing" else 1)
    # What is proved at a radius is not attacked there again, and what is not mostly falls soon.
    beyond = {_stage(eps): 0.3 * each for eps in radii if eps > 0}
    return {"minimum norm": images * 300.0, "certified radius": each, **beyond}


def _stage(eps: float) -> str:
    return f"radius {eps:.6g}"


def attack_certificates(
    subject: Subject,
    certificates: Certificates,
    right: Bool[Tensor, "N"],
    radius: Float64[Tensor, "N"],
    radii: tuple[float, ...],
    settings: CertificationSettings,
) -> tuple[SoundnessRecord, dict[str, Tensor]]:
    """Attack every image at its own radius, then those without a certificate at each radius of a table.

    Args:
        subject: the images, at work.
        certificates: what was proved.
        right: where the certified classifier is right.
        radius: certified radii of the right answers, 0 for the others.
        radii: of the table.
        settings: with which attacks.

    Returns:
        The record, and what was found of each image.
    """
    started = time.perf_counter()
    members = _ensemble(settings.ensemble, subject.model, smoothed=certificates.smoothing is not None)
    attack = CertificateAttack(subject, _as_attacked(subject, certificates, settings), certificates.norm, members)
    broken = attack.at_own_radius(radius)
    # Within its radius an image is proved, and was attacked above.
    robust = [right & ~attack.at(at, right & (radius <= at)) for at in radii]
    record = SoundnessRecord(
        attack=settings.ensemble,
        members=("FMN, minimum norm", *(member.label for member in members.members)),
        images=int((radius > 0).sum()),
        spacing=SPACING,
        broken=tuple(broken.nonzero().flatten().tolist()),
        forward_passes=attack.forward_passes,
        backward_passes=attack.backward_passes,
        seconds=time.perf_counter() - started,
    )
    found = {
        "broken": broken.to(torch.uint8),
        "broken/distance": torch.where(broken, attack.nearest, torch.inf),
        "robust": torch.stack(robust, 1).to(torch.uint8),
    }
    return record, found


def _as_attacked(subject: Subject, certificates: Certificates, settings: CertificationSettings) -> CertifiedModel:
    """The classifier that was certified, as attacks see it, on a copy that is faster, and as it answers."""
    seen = folded(subject.model, subject.images[: subject.batch_size].to(subject.device))
    if certificates.smoothing is None:

        def answers_wrong(images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG001
            with torch.no_grad():
                wrong: Tensor = subject.model(images).argmax(1) != labels
            return wrong

        return CertifiedModel(seen, answers_wrong, itself=None if seen is subject.model else subject.model)
    record = certificates.smoothing
    smoothing = Smoothing(record.sigma, record.n0, record.n, record.alpha)

    def votes_wrong(images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        found = smoothed_prediction(subject.model, images, smoothing, ids=ids, seed=subject.seed)
        return (found != labels.cpu()) & (found != ABSTAINED)

    shape = tuple(subject.images.shape[1:])
    # Votes differ from what attacks see by more than rounding, so what they deny is not sought again.
    model = SmoothedModel(seen, smoothing, shape, draws=settings.draws, seed=subject.seed)
    return CertifiedModel(model.to(subject.device), votes_wrong, outwards=True)


def _ensemble(name: str, model: nn.Module, *, smoothed: bool) -> Ensemble:
    return adaptive(prototypes=not smoothed and has_distances(model)) if name == "adaptive" else ensemble(name)


def _rounded_down(radius: Float64[Tensor, "N"], norm: Norm) -> Float64[Tensor, "N"]:
    """The radii less rounding of pixels, down to the next power of 1 + `SPACING`; 0 where nothing is left."""
    tolerance = torch.tensor([Threat(norm, each).tolerance for each in radius.tolist()], dtype=torch.float64)
    left = radius - tolerance
    step = math.log1p(SPACING)
    # The exponents that are stored are whole numbers, so that equal radii are equal to the last bit.
    floor = ((left.clamp_min(1e-300).log() / step).floor() * step).exp()
    return torch.where(left > tolerance, floor, 0.0)


def _carried_on(images: Tensor, clean: Tensor, edge: Float64[Tensor, "M"], norm: Norm) -> Tensor:
    """The images moved along the line from the clean one to just inside the edge, and into the range of pixels."""
    distance = _exact_distance(images, clean, norm).clamp_min(1e-12)
    # Within 1 - 1e-6 of the edge: rounding of pixels must not carry them over it.
    factor = ((1 - 1e-6) * edge / distance).clamp_min(1).to(images)
    return (clean + column(factor, images) * (images - clean)).clamp(0, 1)


def _exact_distance(a: Tensor, b: Tensor, norm: Norm) -> Float64[Tensor, "M"]:
    """The distance of the very pixels, which float64 holds exactly."""
    return Threat(norm, 0.0).distance(a.cpu().double(), b.cpu().double())
