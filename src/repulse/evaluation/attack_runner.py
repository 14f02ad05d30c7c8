"""Runs attacks on all images of a subject, batch by batch, and what one attack found there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from repulse.attacks import Attack, Threat
from repulse.attacks.attack import attackable, checked_logits
from repulse.attacks.folding import folded
from repulse.attacks.minimum_norm import MinimumNorm
from repulse.attacks.noise import Noise
from repulse.attacks.passes import Passes
from repulse.common.seeding import derive_seed
from repulse.evaluation.gradient_free import GradientFree
from repulse.subject import Subject
from repulse.subject.identity import exact_words
from repulse.subject.journal import BatchResult


@dataclass(frozen=True, eq=False)
class Outcome:
    """One attack on all images; those that the model gets wrong when clean are not robust, and not attacked."""

    robust: Bool[Tensor, "N"]
    prediction: Int64[Tensor, "N"]
    adversarial: Float[Tensor, "K *shape"]
    """Some of the images that fooled the model: the `foremost`, for pictures. All of all attacks would fill memory."""
    shown: Int64[Tensor, "K"]
    """Which images these are made from."""
    distance: Float32[Tensor, "N"]
    """The distance of each image that fooled the model from its clean one; infinite where none did."""
    passes: Passes
    """What this attack spent on each image; zero on those that it was not run on."""
    seconds: Float64[Tensor, "N"]
    """The part of each image in the time of its batch, by its part in the passes; zero like `passes`."""
    attacked: int
    """How many images it was run on."""
    asked: Int64[Tensor, "N"]
    """Forward passes of the attack itself on each image, without those that confirm a success."""

    def after(self, earlier: Outcome) -> Outcome:
        """The same outcome as if it had not left out what an `earlier` attack had fooled.

        The cost stays that of this attack alone.
        """
        fooled = ~earlier.robust
        own = earlier.robust[self.shown]
        return Outcome(
            self.robust & earlier.robust,
            torch.where(fooled, earlier.prediction, self.prediction),
            torch.cat((earlier.adversarial, self.adversarial[own])),
            torch.cat((earlier.shown, self.shown[own])),
            torch.where(fooled, earlier.distance, self.distance),
            self.passes,
            self.seconds,
            self.attacked,
            self.asked,
        )

    @property
    def largest(self) -> float:
        """The largest distance of an adversarial image from its clean one."""
        found = self.distance[self.distance.isfinite()]
        return float(found.max()) if len(found) else 0.0

    def pictures(self, rows: Int64[Tensor, "M"], clean: Float[Tensor, "N *shape"]) -> Float[Tensor, "M *shape"]:
        """What became of some images: of those that fooled the model the `foremost` are known; others are clean."""
        images = clean[rows].clone()
        places = {int(row): place for place, row in enumerate(self.shown)}
        for place, row in enumerate(rows.tolist()):
            if row in places:
                images[place] = self.adversarial[places[row]]
        return images


def foremost(labels: Int64[Tensor, "M"], count: int) -> Int64[Tensor, "K"]:
    """The places that pictures take: the first of each class in turn, then the second, `count` in all; and the first.

    What is foremost among the successes of several attacks together is foremost among those of each that had it.
    """
    counted: dict[int, int] = {}
    ranked = []
    for place, label in enumerate(labels.tolist()):
        counted[label] = counted.get(label, 0) + 1
        ranked.append((counted[label], label, place))
    chosen = [place for _, _, place in sorted(ranked)[:count]]
    return torch.tensor(chosen + [place for place in range(min(count, len(labels))) if place not in chosen]).long()


class AttackRunner:
    """Runs attacks on all images that the model gets right.

    Attacks see a faster copy of the model (see `folded`); what they find counts only if it fools the
    model itself, and where it does not, the model itself is attacked.

    Args:
        subject: the model and its images, at work.
        random: whether the model is stochastic; its random numbers are then seeded anew for every batch.
        variant: tells it from others of the same evaluation, whose model or images differ.
        pictures: how many adversarial images of each attack are kept, see `foremost`.
    """

    def __init__(self, subject: Subject, *, random: bool = False, variant: str = "", pictures: int = 8) -> None:
        self.subject, self.random, self.variant, self.pictures = subject, random, variant, pictures
        self.model, self.images, self.labels, self.ids = subject.model, subject.images, subject.labels, subject.ids
        self.device, self.seed, self.batch_size = subject.device, subject.seed, subject.batch_size
        self.journal, self.progress = subject.journal, subject.progress
        # An attack that somebody still holds the outcome of need not run again.
        self._known: WeakValueDictionary[str, Outcome] = WeakValueDictionary()
        self.natural, self.classes = self._predict()
        self.smallest = torch.where(self.right, torch.inf, 0.0)
        """The smallest perturbation found so far that fools the model, in the norm of the attacks; (N,) float32."""
        self.attacked_model = self.model
        if not random:
            with attackable(self.model):
                self.attacked_model = folded(self.model, self.images[: self.batch_size].to(self.device))

    @property
    def has_gradients(self) -> bool:
        """Whether attacks by gradients can move at all."""
        return not isinstance(self.model, GradientFree)

    @property
    def right(self) -> Bool[Tensor, "N"]:
        """Where the clean image is classified right."""
        return self.natural == self.labels

    def _predict(self) -> tuple[Tensor, int]:
        found, classes = [], 0
        with attackable(self.model), torch.no_grad(), self.seeded("natural"):
            for start in range(0, len(self.images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                logits = checked_logits(self.model(self.images[rows].to(self.device)), self.labels[rows])
                found.append(logits.argmax(1).cpu())
                classes = logits.shape[1]
        return torch.cat(found), classes

    def first_steps(self, outcome: Outcome, steps: int) -> Outcome:
        """What an attack that leaves an image once it has fallen had found after fewer steps, at their cost."""
        fell = ~outcome.robust & self.right & (outcome.asked <= steps + 1)
        passes = Passes(outcome.passes.forward.clamp_max(steps + 1), outcome.passes.backward.clamp_max(steps))
        spent = (outcome.passes.forward + outcome.passes.backward).clamp_min(1)
        own = fell[outcome.shown]
        return Outcome(
            self.right & ~fell,
            torch.where(fell, outcome.prediction, self.natural),
            outcome.adversarial[own],
            outcome.shown[own],
            torch.where(fell, outcome.distance, torch.inf),
            passes,
            outcome.seconds * (passes.forward + passes.backward) / spent,
            outcome.attacked,
            outcome.asked.clamp_max(steps + 1),
        )

    def attack(
        self,
        attack: Attack,
        threat: Threat,
        stage: str,
        *,
        after: Outcome | None = None,
        among: Bool[Tensor, "N"] | None = None,
    ) -> Outcome:
        """Attack all images that the model gets right.

        Args:
            attack: the attack.
            threat: the ball.
            stage: what people call it.
            after: an earlier outcome; what it fooled counts, and is not attacked again.
            among: which images; None: all. The others count as robust, where they are classified right.
        """
        todo = self.right if after is None else self.right & after.robust
        todo = todo if among is None else todo & among
        key = self._key(attack, threat, todo)
        outcome = self._run(
            stage, key, todo, lambda index, rows: self._attack_batch(attack, threat, f"{key}, batch {index}", rows)
        )
        return outcome if after is None else outcome.after(after)

    def minimum(self, attack: MinimumNorm, threat: Threat, stage: str) -> Outcome:
        """The smallest perturbation of all images that the model gets right; those within eps count as fooled.

        Args:
            attack: a minimum-norm attack.
            threat: the ball.
            stage: what people call it.
        """
        key = self._key(attack, threat, self.right)
        return self._run(
            stage, key, self.right, lambda index, rows: self._minimum_batch(attack, threat, f"{key}, {index}", rows)
        )

    def _key(self, attack: Attack, threat: Threat, which: Bool[Tensor, "N"]) -> str:
        """Everything that decides an outcome in this evaluation; names that people give are no part of it."""
        return exact_words((self.variant, self.batch_size, attack, threat, which))

    def _run(
        self, stage: str, key: str, which: Bool[Tensor, "N"], batch: Callable[[int, Tensor], BatchResult]
    ) -> Outcome:
        """Work through some images batch by batch, by way of the journal."""
        if (known := self._known.get(key)) is not None:
            return known
        prediction, robust = self.natural.clone(), self.right.clone()
        distance = torch.full_like(self.smallest, torch.inf)
        todo = which.nonzero().flatten()
        parts = torch.split(todo, self.batch_size) if len(todo) else ()

        def report(index: int) -> None:
            self.progress(stage, min((index + 1) * self.batch_size, len(todo)), len(todo))

        if parts:
            self.progress(stage, 0, len(todo))
        done = self.journal.each(stage, len(parts), lambda index: batch(index, parts[index]), report, key=key)
        passes, seconds = Passes.none(self.labels), torch.zeros(len(self.labels), dtype=torch.float64)
        asked = torch.zeros_like(self.labels)
        for rows, part in zip(parts, done, strict=True):
            self.smallest[rows] = torch.minimum(self.smallest[rows], part["distance"])
            won = rows[part["fooled"]]
            robust[won] = False
            prediction[won], distance[won] = part["prediction"], part["distance"][part["fooled"]]
            passes.put(rows, Passes(part["forward"], part["backward"]))
            seconds[rows], asked[rows] = part["seconds"], part["asked"]
        empty = [(self.images[:0], todo[:0])]
        kept = [(part["adversarial"], rows[part["shown"]]) for rows, part in zip(parts, done, strict=True)]
        adversarial, shown = (torch.cat(each) for each in zip(*(kept or empty), strict=True))
        front = foremost(self.labels[shown], self.pictures)
        outcome = Outcome(
            robust, prediction, adversarial[front], shown[front], distance, passes, seconds, len(todo), asked
        )
        self._known[key] = outcome
        return outcome

    def _minimum_batch(self, attack: MinimumNorm, threat: Threat, key: str, rows: Tensor) -> BatchResult:
        started = time.perf_counter()
        clean, labels = self.images[rows].to(self.device), self.labels[rows].to(self.device)
        with self.seeded(key):
            found = attack.smallest(self.attacked_model, clean, labels, threat, Noise(self.seed, self.ids[rows]))
            prediction = self._answers(found.images)
        # What fools the folded copy but not the model was a matter of rounding, and proves nothing.
        distance = torch.where(prediction != labels, found.distance, torch.inf)
        asked = found.passes.forward.clone()
        found.passes.add(torch.arange(len(rows), device=self.device), forward=1)
        fooled = distance <= threat.eps
        return self._part(rows, fooled, prediction, found.images, distance, found.passes, asked, started)

    def _attack_batch(self, attack: Attack, threat: Threat, key: str, rows: Tensor) -> BatchResult:
        """What an attack found on some images, confirmed on the model itself."""
        started = time.perf_counter()
        clean, labels = self.images[rows].to(self.device), self.labels[rows].to(self.device)
        with self.seeded(key):
            result = attack(self.attacked_model, clean, labels, threat, seed=self.seed, ids=self.ids[rows])
            adversarial, prediction, fooled = result.adversarial, result.prediction, result.fooled
            passes, asked = result.passes, result.passes.forward.clone()
            if self.attacked_model is not self.model and bool(fooled.any()):
                prediction = self._answers(adversarial)
                passes.add(torch.arange(len(rows), device=self.device), forward=1)
                again = (fooled & (prediction == labels)).nonzero().flatten()
                fooled = prediction != labels
                if len(again):
                    ids = self.ids[rows[again.cpu()]]
                    result = attack(self.model, clean[again], labels[again], threat, seed=self.seed, ids=ids)
                    adversarial[again], prediction[again] = result.adversarial, result.prediction
                    fooled[again] = result.fooled
                    passes.put(again, result.passes)
                    asked[again] = result.passes.forward
        distance = threat.distance(adversarial, clean)
        if len(distance) and float(distance.max()) > threat.eps + threat.tolerance:
            raise AssertionError(
                f"{attack}: an adversarial image lies {distance.max()} away, more than eps={threat.eps}"
            )
        nearest = torch.where(fooled, distance, torch.inf)
        return self._part(rows, fooled, prediction, adversarial, nearest, passes, asked, started)

    def _answers(self, images: Tensor) -> Tensor:
        """The classes that the model itself gives a batch."""
        with attackable(self.model), torch.no_grad():
            answers: Tensor = self.model(images).argmax(1)
        return answers

    @contextmanager
    def seeded(self, *key: str | int) -> Iterator[None]:
        """For stochastic models, within this context their random numbers depend on the seed and the key only."""
        if not self.random:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "dice", *key))
            yield

    def _part(
        self,
        rows: Tensor,
        fooled: Tensor,
        prediction: Tensor,
        adversarial: Tensor,
        nearest: Tensor,
        passes: Passes,
        asked: Tensor,
        started: float,
    ) -> BatchResult:
        """What the journal keeps of a batch: of all its images cost and the nearest success, and those that fool."""
        forward, backward = passes.forward.cpu(), passes.backward.cpu()
        # Of each batch, too, for all batches of an attack are held at once.
        won = fooled.cpu().nonzero().flatten()
        shown = won[foremost(self.labels[rows[won]], self.pictures).sort().values]
        # An attack that never asks the model spends its time on all images alike.
        weight = (forward + backward).double()
        weight = weight / weight.sum() if weight.any() else torch.full_like(weight, 1 / max(len(weight), 1))
        return {
            "fooled": fooled.cpu(),
            "prediction": prediction[fooled].cpu(),
            "adversarial": adversarial[shown.to(adversarial.device)].cpu(),
            "shown": shown,
            "distance": nearest.float().cpu(),
            "forward": forward,
            "backward": backward,
            "asked": asked.cpu(),
            "seconds": weight * (time.perf_counter() - started),
        }
