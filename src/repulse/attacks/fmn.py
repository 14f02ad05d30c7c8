"""FMN: the smallest perturbation that fools, by gradient steps on a ball that grows and shrinks.

Source: Pintor, Roli, Brendel & Biggio, *Fast minimum-norm adversarial attacks through adaptive norm constraints*,
NeurIPS 2021, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, attackable, check_inputs, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import OBJECTIVES, Objective, uphill
from repulse.attacks.passes import Passes
from repulse.attacks.smallest import Smallest
from repulse.attacks.targets import margin_targeted, nearest_wrong_classes
from repulse.attacks.threat import Threat, column
from repulse.common.errors import RepulseError

Value = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(images (M, *shape), rows (M,)) -> values (M,), logits (M, n)`: an objective on some rows of a batch."""


@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum-norm attack, from the clean image; nothing in it is random.

    The ball around each image shrinks while its present point is adversarial, and grows while it is not; until a first
    success its radius is the distance to the boundary as the gradient shows it. At the end a bisection of the radius
    brings the best point back to the boundary.

    The source takes one walk. Here four shorter ones cost the same and find less: on digits a quarter of the images
    came out with a smaller perturbation, by up to a quarter, and none with a larger one beyond 2 %.

    Steps are shares of the present radius, and in L-inf they follow the gradient's sign, so that neither the range of
    pixels nor their number matters; the source's are lengths in L2. What of a gradient points out of the range of
    pixels is left out: in L2 it would use up the radius, and some images at the range's ends would never be fooled.

    Args:
        steps: gradient steps of a walk.
        objective: what to climb; below nought while the model is right, such as the margin.
        targets: further walks, each of as many steps, towards the likeliest wrong classes: the margin leads to a
            boundary near the clean image, which need not be the nearest one.
        step_start: first step, as a share of the present radius; falls by a cosine to `step_end`.
        step_end: last step.
        gamma_start: first relative change of the radius per step; falls by a cosine to `gamma_end`.
        gamma_end: last relative change.
        bisections: forward passes of the bisection at the end; each halves what is left to gain.

    Raises:
        RepulseError: if steps is below 1, targets or bisections is negative, a step is not positive, or a gamma is not
            in (0, 1).
    """

    steps: int = 50
    objective: Objective = OBJECTIVES["margin"]
    targets: int = 3
    step_start: float = 1.0
    step_end: float = 0.01
    gamma_start: float = 0.05
    gamma_end: float = 0.001
    bisections: int = 10

    def __post_init__(self) -> None:
        for name, count, least in (
            ("steps", self.steps, 1),
            ("targets", self.targets, 0),
            ("bisections", self.bisections, 0),
        ):
            if count < least:
                raise RepulseError(f"{name} must be at least {least}, got {count}")
        if not (self.step_start > 0 and self.step_end > 0):
            raise RepulseError(f"step_start and step_end must be positive, got {self.step_start} and {self.step_end}")
        if not (0 < self.gamma_start < 1 and 0 < self.gamma_end < 1):
            raise RepulseError(
                f"gamma_start and gamma_end must lie between 0 and 1, got {self.gamma_start} and {self.gamma_end}"
            )

    def smallest(
        self,
        model: nn.Module,
        x: Float[Tensor, "N *shape"],
        y: Int64[Tensor, "N"],
        threat: Threat,
        noise: Noise,  # noqa: ARG002
    ) -> Smallest:
        """The nearest adversarial image of every image, checked by the model; the threat's eps does not matter.

        Args:
            model: maps images to logits (N, n); attacked in evaluation mode, and left in the mode it was in.
            x: clean images, pixels in the threat's range.
            y: true classes.
            threat: its norm and range of pixels.
            noise: not used.

        Raises:
            RepulseError: if images are not numbers or out of range, labels don't fit, or logits are not finite.
        """
        check_inputs(x, y, threat)
        with attackable(model):
            # One image first: objectives index logits by label, and would fail in a way that says nothing.
            with torch.inference_mode():
                checked_logits(model(x[:1]), y)
            walk = _Walk(self, model, x, y, threat, enough=0.0)
            walk.run()
            with torch.inference_mode():
                fooled = checked_logits(model(walk.best), y).argmax(1) != y
        # Left inference mode by a copy, so that callers may do what they like with it.
        fooled = fooled.clone()
        images = torch.where(column(fooled, x), walk.best, x)
        distance = torch.where(fooled, threat.distance(images, x), torch.inf).float()
        return Smallest(images, distance, walk.passes)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:  # noqa: ARG002
        """Walk until inside the ball; elsewhere the nearest success, or the last point, brought into the ball."""
        walk = _Walk(self, model, x, y, threat, enough=threat.eps)
        walk.run()
        return Perturbed(threat.project(walk.best, x), walk.passes)


class _Walk:
    """One walk of a batch. `best` holds the nearest success, or the last point; `distance` is inf without success."""

    def __init__(self, attack: FMN, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, enough: float) -> None:
        self.attack, self.model, self.x, self.y, self.threat, self.enough = attack, model, x, y, threat, enough
        self.best = x.clone()
        self.distance = x.new_full((len(x),), torch.inf)
        self.passes = Passes.none(x)

    def run(self) -> None:
        """Walk on the objective, walk towards each target, then bisect."""
        self._walk(lambda images, rows: self.attack.objective(self.model, images, self.y[rows]))
        if self.attack.targets:
            with torch.no_grad():
                logits = checked_logits(self.model(self.x), self.y)
            self.passes.add(torch.arange(len(self.x), device=self.x.device), forward=1)
            for target in nearest_wrong_classes(logits, self.y, self.attack.targets).unbind(1):
                self._walk(self._towards(target))
        self._bisect()

    def _towards(self, target: Tensor) -> Value:
        def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            logits: Tensor = self.model(images)
            return margin_targeted(logits, self.y[rows], target[rows]), logits

        return value

    def _walk(self, value: Value) -> None:
        """From the clean image, where what is known is not near enough."""
        rows = (self.distance > self.enough).nonzero().flatten()
        if len(rows) == 0:
            return
        images, radius = self.x[rows], torch.full_like(self.distance[rows], torch.inf)
        seen = torch.zeros_like(rows, dtype=torch.bool)
        for taken in range(self.attack.steps + 1):
            last = taken == self.attack.steps
            values, gradient, fooled = self._ask(value, images, rows, last=last)
            seen = seen | fooled
            length = self.threat.distance(images, self.x[rows])
            nearer = fooled & (length < self.distance[rows])
            # Until a first success the last point is the one to show.
            kept = nearer | self.distance[rows].isinf()
            self.best[rows[kept]] = images[kept]
            self.distance[rows[nearer]] = length[nearer]
            stay = (self.distance[rows] > self.enough).nonzero().flatten()
            if last or len(stay) == 0:
                break
            share = _cosine(taken / self.attack.steps)
            gamma = self.attack.gamma_end + share * (self.attack.gamma_start - self.attack.gamma_end)
            step = self.attack.step_end + share * (self.attack.step_start - self.attack.step_end)
            # The guess alone would come to the boundary from inside, ever nearer, and never cross it.
            guess = length + _to_boundary(values, gradient, self.threat)
            outside = torch.where(seen, radius, guess) * (1 + gamma)
            inside = torch.minimum(radius * (1 - gamma), self.distance[rows])
            radius = torch.minimum(torch.where(fooled, inside, outside), self._reach(rows))[stay]
            rows, images, gradient, seen = rows[stay], images[stay], gradient[stay], seen[stay]
            moved = images + column(step * radius, images) * self.threat.steepest_step(gradient, 1.0)
            images = self._within(moved, rows, radius)

    def _ask(self, value: Value, images: Tensor, rows: Tensor, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Objective, its gradient and who is fooled; the last point needs no gradient."""
        self.passes.add(rows, forward=1, backward=0 if last else 1)
        labels = self.y[rows]
        if last:
            with torch.no_grad():
                values, logits = value(images, rows)
            gradient = torch.zeros_like(images)
        else:
            images = images.detach().requires_grad_()
            values, logits = value(images, rows)
            gradient = self._free(uphill(values, images), images.detach())
        return values.detach(), gradient, checked_logits(logits.detach(), labels).argmax(1) != labels

    def _free(self, gradient: Tensor, images: Tensor) -> Tensor:
        """The gradient without what points out of the range of pixels: that part of a step would be lost."""
        up, down = (images >= self.threat.high) & (gradient > 0), (images <= self.threat.low) & (gradient < 0)
        return gradient.masked_fill(up | down, 0.0)

    def _reach(self, rows: Tensor) -> Tensor:
        """The distance to the farthest corner of the range of pixels."""
        clean = self.x[rows]
        room = torch.maximum(clean - self.threat.low, self.threat.high - clean)
        return self.threat.distance(room, torch.zeros_like(room))

    def _within(self, images: Tensor, rows: Tensor, radius: Tensor) -> Tensor:
        """The nearest images allowed when every image has its own radius."""
        clean = self.x[rows]
        difference, limit = images - clean, column(radius, images)
        if self.threat.norm == "linf":
            difference = torch.minimum(torch.maximum(difference, -limit), limit)
        else:
            length = column(difference.flatten(1).norm(dim=1), images)
            difference = difference * (limit / length.clamp_min(1e-12)).clamp_max(1)
        return (clean + difference).clamp(self.threat.low, self.threat.high)

    def _bisect(self) -> None:
        """Bring each success nearer for as long as it remains one."""
        rows = ((self.distance > self.enough) & self.distance.isfinite()).nonzero().flatten()
        if len(rows) == 0:
            return
        found, high = self.best[rows], self.distance[rows]
        low = torch.zeros_like(high)
        for _ in range(self.attack.bisections):
            middle = (low + high) / 2
            tried = self._within(found, rows, middle)
            with torch.inference_mode():
                fooled = (checked_logits(self.model(tried), self.y[rows]).argmax(1) != self.y[rows]).clone()
            self.passes.add(rows, forward=1)
            self.best[rows[fooled]] = tried[fooled]
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        self.distance[rows] = high


def _to_boundary(values: Tensor, gradient: Tensor, threat: Threat) -> Tensor:
    """How far the boundary lies if the model is linear: what the objective lacks over the gradient's dual norm."""
    flat = gradient.flatten(1)
    if threat.norm == "linf":
        slope = flat.abs().sum(1)
    else:
        # Scaled by its largest entry first: the square of a tiny gradient is nought in float32.
        largest = flat.abs().amax(1)
        slope = largest * (flat / largest.clamp_min(1e-38).unsqueeze(1)).norm(dim=1)
    return torch.where(slope > 0, (-values).clamp_min(0) / slope.clamp_min(1e-38), torch.inf)


def _cosine(share: float) -> float:
    """From 1 to 0."""
    return (1 + math.cos(math.pi * share)) / 2
