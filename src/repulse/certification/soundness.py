"""Attack certificates: look inside the certified radius of every image for one that the model gets wrong.

A certificate is a claim about all images of a ball, so a single image inside it that fools the model refutes it. That
an attack finds none proves nothing; but wrong constants, wrong geometry and wrong code are found this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from repulse.attacks import FMN, Ensemble, Norm, Threat
from repulse.attacks.noise import Noise
from repulse.attacks.threat import column
from repulse.evaluation.bench import Progress
from repulse.evaluation.identity import exact_words
from repulse.evaluation.journal import Journal, Part

SPACING = 0.05
"""By how much at most, as a share, a certified radius is rounded down for attacks that take one radius for a batch."""

Judge = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(images (M, *shape), labels (M,), ids (M,)) -> (M,) bool`: whether the certified classifier is fooled."""


@dataclass(frozen=True, eq=False)
class Victim:
    """A certified classifier.

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


class Siege:
    """Attacks on the images of a certification; remembers the nearest image found that fools, for each.

    Attacks take one radius for a whole batch, and certified radii differ. So two things are done. A minimum-norm attack
    needs no radius: what it finds is compared with each image's own. Then the ensemble attacks images whose radii are
    alike together, at a radius that is rounded down by at most `SPACING`, to a grid that does not depend on the images.

    Distances of what is found are computed in float64 from the very pixels that the model saw: no tolerance is needed.

    Args:
        victim: the classifier.
        images: clean images, in [0, 1].
        labels: true classes.
        ids: a number for each image, see `repulse.attacks.noise.Noise`.
        norm: of the certificate.
        ensemble: the attacks.
        device: where the model is.
        seed: of random starts.
        batch_size: images attacked at once.
        journal: keeps what is done.
        progress: told after each batch.
    """

    def __init__(
        self,
        victim: Victim,
        images: Float[Tensor, "N *shape"],
        labels: Int64[Tensor, "N"],
        ids: Int64[Tensor, "N"],
        *,
        norm: Norm,
        ensemble: Ensemble,
        device: torch.device,
        seed: int,
        batch_size: int,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.victim, self.images, self.labels, self.ids = victim, images, labels, ids
        self.norm, self.ensemble, self.device = norm, ensemble, device
        self.seed, self.batch_size, self.journal, self.progress = seed, batch_size, journal, progress
        self.nearest = torch.full((len(images),), torch.inf, dtype=torch.float64)
        """Distance of the nearest image found that fools the classifier; inf where none was."""
        self.forward_passes = self.backward_passes = 0

    def at_own_radius(self, radius: Float64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Attack every image that has a radius, inside it; returns where the certificate was broken."""
        rows = (radius > 0).nonzero().flatten()
        parts = torch.split(rows, self.batch_size) if len(rows) else ()
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
            every = torch.full((len(self.images),), eps, dtype=torch.float64)
            self._within(f"radius {eps:.6g}", every, which & (self.nearest > eps))
        # An attack may put an image as far outside the ball as rounding does; that still counts as the ball.
        return self.nearest <= eps + Threat(self.norm, eps).tolerance if eps > 0 else torch.zeros_like(which)

    def _within(self, stage: str, eps: Float64[Tensor, "N"], which: Bool[Tensor, "N"]) -> None:
        """The ensemble, on images of equal eps together."""
        parts: list[Tensor] = []
        for value in sorted(set(eps[which].tolist())):
            parts += torch.split((which & (eps == value)).nonzero().flatten(), self.batch_size)
        self._run(
            stage,
            exact_words((self.norm, self.ensemble, eps, which)),
            tuple(parts),
            lambda part: self._search(part, lambda model, rows: self._attacked(model, rows, float(eps[part[0]]))),
        )

    def _run(self, stage: str, key: str, parts: tuple[Tensor, ...], work: Callable[[Tensor], Part]) -> None:
        total, ends = sum(map(len, parts)), torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        done = self.journal.each(
            stage,
            len(parts),
            lambda index: work(parts[index]),
            lambda index: self.progress(stage, ends[index], total),
            key=key,
        )
        for rows, part in zip(parts, done, strict=True):
            self.nearest[rows] = torch.minimum(self.nearest[rows], part["distance"])
            self.forward_passes += int(part["passes"][0])
            self.backward_passes += int(part["passes"][1])

    def _search(self, rows: Tensor, search: Callable[[nn.Module, Tensor], Part]) -> Part:
        """What a search finds on what attacks see; where that is denied, on the classifier itself."""
        part, itself = search(self.victim.model, rows), self.victim.itself
        denied = (part.pop("hit") & part["distance"].isinf()).nonzero().flatten()
        if itself is not None and len(denied):
            second = search(itself, rows[denied])
            part["distance"][denied] = second["distance"]
            part["passes"] = part["passes"] + second["passes"]
        return part

    def _minimum(self, model: nn.Module, rows: Tensor, radius: Float64[Tensor, "M"]) -> Part:
        clean, labels, ids = self._batch(rows)
        found = FMN().smallest(model, clean, labels, Threat(self.norm, 0.0), Noise(self.seed, ids))
        hit = found.distance.isfinite().cpu()
        if self.victim.outwards:
            hit &= found.distance.cpu() < radius
        return self._judged(found.images, clean, labels, ids, hit, radius, found.passes.total)

    def _attacked(self, model: nn.Module, rows: Tensor, eps: float) -> Part:
        clean, labels, ids = self._batch(rows)
        result = self.ensemble(model, clean, labels, Threat(self.norm, eps), seed=self.seed, ids=ids)
        edge = torch.full((len(rows),), eps, dtype=torch.float64)
        return self._judged(result.adversarial, clean, labels, ids, result.fooled.cpu(), edge, result.passes.total)

    def _batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.images[rows].to(self.device), self.labels[rows].to(self.device), self.ids[rows]

    def _judged(
        self,
        images: Tensor,
        clean: Tensor,
        labels: Tensor,
        ids: Tensor,
        hit: Bool[Tensor, "M"],
        edge: Float64[Tensor, "M"],
        passes: tuple[int, int],
    ) -> Part:
        """Which images a search says that it won, and how far away each is that fools the classifier, inf if none."""
        distance = torch.full((len(images),), torch.inf, dtype=torch.float64)
        rows = hit.nonzero().flatten()
        if len(rows):
            on = rows.to(self.device)
            found, beside = images[on].detach(), clean[on]
            if self.victim.outwards:
                found = _carried_on(found, beside, edge[rows], self.norm)
            fooled = self.victim.judge(found, labels[on], ids[rows]).cpu()
            distance[rows] = torch.where(fooled, _exact_distance(found, beside, self.norm), torch.inf)
        return {"hit": hit, "distance": distance, "passes": torch.tensor(passes)}


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
