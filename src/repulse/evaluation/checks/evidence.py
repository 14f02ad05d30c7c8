"""What the checks of a verdict look at: a few cheap attacks of their own, gradients, and the path of one attack.

Everything is measured at most once, when a check first asks for it, on the same few images. The journal of the runner
keeps it batch by batch, so that an evaluation that was killed does not measure it again, and processes share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks import OBJECTIVES, PGD, Attack, Threat, fgsm
from repulse.attacks.ascent import ascend
from repulse.attacks.attack import attackable
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import usable
from repulse.common.seeding import derive_seed
from repulse.evaluation.attack_runner import AttackRunner, Outcome
from repulse.evaluation.expectation import ROUNDING
from repulse.evaluation.record import AttackRecord
from repulse.subject.journal import BatchResult

# Multiples of eps at which robust accuracy is measured to see whether it falls.
MULTIPLES = (0.5, 1.0, 2.0, 4.0)

# Steps of the attacks that the others are compared with.
STEPS = 20


@dataclass(frozen=True, eq=False)
class ObjectiveGradient:
    """An objective at the clean images: its value, and its gradient with respect to the image."""

    values: Float[Tensor, "n"]
    gradient: Float[Tensor, "n *shape"]

    @property
    def vanished(self) -> Bool[Tensor, "n"]:
        """Where the whole gradient is zero, too small for an ordinary float32, or not a number."""
        flat = self.gradient.flatten(1)
        usable = torch.isfinite(flat).all(1) & (flat.abs().amax(1) >= torch.finfo(torch.float32).tiny)
        return ~usable


class _Batch(NamedTuple):
    """Some of the images, with their labels and random numbers."""

    x: Tensor
    y: Tensor
    noise: Noise


@dataclass(frozen=True, eq=False)
class Evidence:
    """Some images that the model classifies right, what the attacks of the evaluation found, and more on demand."""

    about: ClassVar[Literal["attacks"]] = "attacks"
    runner: AttackRunner
    x: Float[Tensor, "n *shape"]
    y: Int64[Tensor, "n"]
    ids: Int64[Tensor, "n"]
    threat: Threat
    seed: int
    found: Mapping[str, Bool[Tensor, "N"]]
    """By attack, in the order they ran: which of all images that the model classifies right are robust."""
    attacks: Mapping[str, AttackRecord]
    """What each of them is."""
    chosen: Int64[Tensor, "n"]
    """Where `x` stands among the images of `found`."""

    @classmethod
    def gather(
        cls,
        runner: AttackRunner,
        threat: Threat,
        found: Mapping[str, Outcome],
        attacks: Sequence[AttackRecord],
        images: int,
    ) -> Evidence:
        """Take up to `images` of those that the model classifies right, evenly spread over the runner."""
        right = runner.right.nonzero().flatten()
        chosen = torch.linspace(0, len(right) - 1, min(images, len(right))).round().long()
        rows, known = right[chosen], {attack.name: attack for attack in attacks}
        return cls(
            runner,
            runner.images[rows].to(runner.device),
            runner.labels[rows].to(runner.device),
            runner.ids[rows],
            threat,
            # Other starts than those of the evaluation, so that its luck is not repeated.
            derive_seed(runner.seed, "examine"),
            # The published script attacks other images, and says nothing about these.
            {n: o.robust[right] for n, o in found.items() if known[n].group != "paper-as-published"},
            known,
            chosen,
        )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def model(self) -> nn.Module:
        """What is examined."""
        return self.runner.model

    @cached_property
    def survivors(self) -> Bool[Tensor, "n"]:
        """Which of these images no attack of the evaluation fooled."""
        left = torch.ones(len(self), dtype=torch.bool)
        for robust in self.found.values():
            left &= robust[self.chosen]
        return left

    def group(self, *names: str) -> Bool[Tensor, "N"] | None:
        """Which of all images no attack of these groups fooled; None if none of them ran."""
        masks = [robust for name, robust in self.found.items() if self.attacks[name].group in names]
        return torch.stack(masks).all(0) if masks else None

    def black_box_gain(self) -> Bool[Tensor, "N"] | None:
        """Which of all images a black-box attack fooled and no attack before it had; None if none ran."""
        left, gained = None, None
        for name, robust in self.found.items():
            left = torch.ones_like(robust) if left is None else left
            if self.attacks[name].black_box:
                gained = (torch.zeros_like(robust) if gained is None else gained) | (left & ~robust)
            left = left & robust
        return gained

    def robust(
        self, what: str, attack: Attack, threat: Threat | None = None, among: Bool[Tensor, "n"] | None = None
    ) -> Bool[Tensor, "n"]:
        """Which of these images an attack leaves; those not `among` the ones to attack count as robust.

        Args:
            what: the attack and its ball in words, by which the journal knows it.
            attack: the attack.
            threat: the ball; None: that of the evaluation.
            among: which images to attack; None: all.
        """
        ball = self.threat if threat is None else threat

        def ask(batch: _Batch) -> tuple[Tensor]:
            result = attack(self.model, batch.x, batch.y, ball, seed=self.seed, ids=batch.noise.ids)
            return (~result.fooled,)

        left = torch.ones(len(self), dtype=torch.bool)
        todo = torch.ones_like(left) if among is None else among
        if todo.any():
            left[todo] = self._in_batches(what, ask, todo)[0]
        return left

    def gradient_of(self, name: str) -> ObjectiveGradient:
        """The objective of that name at the clean images."""
        return self._gradients[name]

    @cached_property
    def _gradients(self) -> dict[str, ObjectiveGradient]:
        return {
            name: ObjectiveGradient(*self._in_batches(f"gradient of {name}", partial(self._climb, name)))
            for name in ("margin", "cross-entropy")
        }

    @cached_property
    def ladder(self) -> dict[float, Bool[Tensor, "n"]]:
        """Which images PGD on the margin leaves, at multiples of eps."""
        attack = PGD(OBJECTIVES["margin"], steps=STEPS, random_start=True)
        return {m: self.robust(f"margin at {m:g} eps", attack, self._ball(m * self.threat.eps)) for m in MULTIPLES}

    @cached_property
    def cross_entropy(self) -> Bool[Tensor, "n"]:
        """Which images PGD on cross-entropy leaves, from the starts of the one on the margin."""
        return self.robust("cross-entropy", PGD(OBJECTIVES["cross-entropy"], steps=STEPS, random_start=True))

    @cached_property
    def single_step(self) -> Bool[Tensor, "n"]:
        """Which images one step leaves, on cross-entropy or on the margin."""
        names = ("cross-entropy", "margin")
        found = [self.robust(f"one step on {name}", fgsm(OBJECTIVES[name], self.threat)) for name in names]
        return torch.stack(found).all(0)

    def more_steps(self, steps: int, restarts: int) -> Bool[Tensor, "n"]:
        """Which images that no attack of the evaluation fooled a longer PGD on the margin leaves, too."""
        baseline = self.survivors if self.found else self.ladder[1.0]
        attack = PGD(OBJECTIVES["margin"], steps=steps, restarts=restarts, random_start=True)
        return self.robust(f"{steps} steps, {restarts} starts", attack, among=baseline) & baseline

    @cached_property
    def whole_space(self) -> Bool[Tensor, "n"]:
        """Which images PGD on the margin leaves from the clean image where every image is allowed."""
        reach = self.threat.high - self.threat.low
        eps = reach if self.threat.norm == "linf" else reach * math.sqrt(self.x[0].numel())
        attack = PGD(OBJECTIVES["margin"], steps=2 * STEPS, step_size=eps / STEPS)
        return self.robust("the whole space", attack, self._ball(eps))

    @cached_property
    def path(self) -> Float[Tensor, "steps n"]:
        """The margin at every step of PGD on it from the clean image, which goes on after an image is fooled."""
        return self._in_batches("path", self._walk)[0].T

    @cached_property
    def kept_promises(self) -> Bool[Tensor, "n"]:
        """Where a step of eps/10 raises the margin by a quarter to four times of what its gradient promises."""
        return self._in_batches("promises", self._promise)[0]

    def random_points(self, tries: int) -> Bool[Tensor, "n"]:
        """Which images random points and random corners of the ball fool, `tries` of each, beyond all other attacks."""
        left = self.survivors & self.ladder[1.0] & self.cross_entropy
        fooled = torch.zeros_like(left)
        if left.any():
            fooled[left] = self._in_batches(f"{tries} random points", partial(self._guess, tries), left)[0]
        return fooled

    @cached_property
    def unsteady(self) -> Bool[Tensor, "n"]:
        """Where two calls on the same images give logits that differ by more than rounding."""
        return self._in_batches("asked twice", self._differ)[0]

    def _ball(self, eps: float) -> Threat:
        return Threat(self.threat.norm, eps, self.threat.low, self.threat.high)

    def _climb(self, name: str, batch: _Batch) -> tuple[Tensor, Tensor]:
        x = batch.x.detach().requires_grad_()
        values, _ = OBJECTIVES[name](self.model, x, batch.y)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), gradient

    def _margin(self, batch: _Batch) -> Tensor:
        with torch.no_grad():
            return OBJECTIVES["margin"](self.model, batch.x, batch.y)[0]

    def _differ(self, batch: _Batch) -> tuple[Tensor]:
        with torch.no_grad():
            first, second = self.model(batch.x), self.model(batch.x)
        spread = first.amax(1) - first.amin(1)
        return ((first - second).abs().amax(1) > ROUNDING * spread,)

    def _walk(self, batch: _Batch) -> tuple[Tensor]:
        margins: list[Tensor] = []

        def margin(x: Tensor) -> Tensor:
            values, _ = OBJECTIVES["margin"](self.model, x, batch.y)
            margins.append(values.detach())
            return values

        end = ascend(margin, batch.x, batch.x, self.threat, STEPS, self.threat.eps / 4)
        return (torch.stack([*margins, self._margin(batch._replace(x=end))], 1),)

    def _promise(self, batch: _Batch) -> tuple[Tensor]:
        values, gradient = self._climb("margin", batch)
        gradient = usable(gradient)
        step = self.threat.steepest_step(gradient, self.threat.eps / 10)
        moved = batch._replace(x=(batch.x + step).clamp(self.threat.low, self.threat.high))
        gained = self._margin(moved) - values
        promised = (gradient * (moved.x - batch.x)).flatten(1).sum(1)
        kept = (promised > 0) & (gained >= promised / 4) & (gained <= promised * 4)
        # Where the range of pixels forbids every useful step, nothing was promised.
        barred = (moved.x == batch.x).flatten(1).all(1) & (gradient != 0).flatten(1).any(1)
        return (kept | barred,)

    def _guess(self, tries: int, batch: _Batch) -> tuple[Tensor]:
        x, y, noise = batch
        fooled = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for trial in range(tries):
            corner = self.threat.steepest_step(noise.normal(x, "checks", "corner", trial), self.threat.eps)
            for guess in (self.threat.random_point(x, noise, "checks", "point", trial), x + corner):
                with torch.no_grad():
                    fooled |= self.model(self.threat.project(guess, x)).argmax(1) != y
        return (fooled,)

    def _in_batches(
        self, what: str, ask: Callable[[_Batch], tuple[Tensor, ...]], among: Bool[Tensor, "n"] | None = None
    ) -> tuple[Tensor, ...]:
        """Ask about the images (or some of them) in batches, with the model in evaluation mode; answers on the CPU."""
        todo = torch.arange(len(self)) if among is None else among.nonzero().flatten()
        batches = torch.split(todo, self.runner.batch_size)
        stage = f"checks, {what}"

        def work(index: int) -> BatchResult:
            rows = batches[index]
            there = rows.to(self.x.device)
            batch = _Batch(self.x[there], self.y[there], Noise(self.seed, self.ids[rows]))
            with self.runner.seeded(stage, index), attackable(self.model):
                return {f"{place}": answer.cpu() for place, answer in enumerate(ask(batch))}

        parts = self.runner.journal.each(stage, len(batches), work)
        return tuple(torch.cat([part[name] for part in parts]) for name in sorted(parts[0]))
