"""The test bench: a model, its images in batches on its device, and what an attack on all of them found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks import Attack, Threat
from repulse.attacks.attack import attackable, checked_logits
from repulse.errors import RepulseError

Progress = Callable[[str, int, int], None]
"""`(stage, done, of)`: told after each batch."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One attack on all images; those that the model gets wrong by nature are not robust, and not attacked."""

    robust: Bool[Tensor, "N"]
    prediction: Int64[Tensor, "N"]
    adversarial: Float[Tensor, "N *shape"]
    forward_passes: int
    backward_passes: int
    seconds: float
    largest: float
    """The largest distance of an adversarial image from its clean one."""

    def after(self, earlier: Outcome) -> Outcome:
        """The same outcome as if it had not left out what an `earlier` attack with the same start had fooled.

        The cost stays that of this attack alone.
        """
        fooled = ~earlier.robust
        prediction, adversarial = self.prediction.clone(), self.adversarial.clone()
        prediction[fooled], adversarial[fooled] = earlier.prediction[fooled], earlier.adversarial[fooled]
        return Outcome(
            self.robust & earlier.robust,
            prediction,
            adversarial,
            self.forward_passes,
            self.backward_passes,
            self.seconds,
            max(self.largest, earlier.largest),
        )


class Bench:
    """Runs attacks on all images that the model gets right.

    Args:
        model: maps images to logits.
        images: clean images, in the threat's range.
        labels: true classes.
        batch_size: images attacked at once.
        seed: of random starts.
        progress: told after each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Float[Tensor, "N *shape"],
        labels: Int64[Tensor, "N"],
        *,
        batch_size: int,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.batch_size, self.seed, self.progress = batch_size, seed, progress or _silent
        first = next(iter([*model.parameters(), *model.buffers()]), images)
        self.device = first.device
        self.natural, self.classes = self._predict()

    @property
    def right(self) -> Bool[Tensor, "N"]:
        """Where the clean image is classified right."""
        return self.natural == self.labels

    def _predict(self) -> tuple[Tensor, int]:
        found, classes = [], 0
        with attackable(self.model), torch.inference_mode():
            for start in range(0, len(self.images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                logits = checked_logits(self.model(self.images[rows].to(self.device)), self.labels[rows])
                found.append(logits.argmax(1).cpu())
                classes = logits.shape[1]
        return torch.cat(found), classes

    def check_deterministic(self) -> None:
        """Refuse a model that answers the same question in two ways.

        Raises:
            RepulseError: if two calls on the first batch give different logits.
        """
        some = self.images[: self.batch_size].to(self.device)
        with attackable(self.model), torch.inference_mode():
            if not torch.equal(self.model(some), self.model(some)):
                raise RepulseError(
                    "the model gives the same images different logits when asked twice; attacks in expectation over a "
                    "random model are not built yet: make it deterministic"
                )

    def attack(self, attack: Attack, threat: Threat, stage: str, *, after: Outcome | None = None) -> Outcome:
        """Attack all images that the model gets right.

        Args:
            attack: the attack.
            threat: the ball.
            stage: what progress calls it.
            after: an attack with the same start and fewer steps; what it fooled counts, and is not attacked again.
        """
        started = time.perf_counter()
        prediction, adversarial, robust = self.natural.clone(), self.images.clone(), self.right.clone()
        todo = (robust if after is None else robust & after.robust).nonzero().flatten()
        forward = backward = 0
        largest = 0.0
        for start in range(0, len(todo), self.batch_size):
            rows = todo[start : start + self.batch_size]
            clean = self.images[rows].to(self.device)
            result = attack(self.model, clean, self.labels[rows].to(self.device), threat, seed=self.seed, ids=rows)
            distance = threat.distance(result.adversarial, clean).max().item()
            if distance > threat.eps + threat.tolerance:
                raise AssertionError(f"{stage}: an adversarial image lies {distance} away, more than eps={threat.eps}")
            largest = max(largest, distance)
            robust[rows] = ~result.fooled.cpu()
            prediction[rows] = result.prediction.cpu()
            adversarial[rows] = result.adversarial.cpu()
            forward += result.forward_passes
            backward += result.backward_passes
            self.progress(stage, min(start + len(rows), len(todo)), len(todo))
        seconds = time.perf_counter() - started
        outcome = Outcome(robust, prediction, adversarial, forward, backward, seconds, largest)
        return outcome if after is None else outcome.after(after)


def _silent(stage: str, done: int, of: int) -> None:
    """Nobody watches."""
