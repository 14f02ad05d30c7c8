"""HopSkipJump: an attack that sees decisions only, no logits and no gradients."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.attack import Attack, Perturbed, checked_logits
from repulse.attacks.noise import Noise
from repulse.attacks.passes import Passes
from repulse.attacks.threat import Norm, Threat, column
from repulse.common.errors import RepulseError

_KEY = 40_000
_STARTS_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class HopSkipJump(Attack):
    """HopSkipJump (Chen, Jordan & Wainwright 2020), foolbox's, one image after the other.

    It starts from an adversarial image far away and walks along the boundary towards the clean image, until it is
    inside the ball. Foolbox scales the gradient that it estimates by the length of the whole batch, so images go alone;
    the points that estimate a gradient are asked for at once instead of one by one. An image for which no start is
    found counts as robust.

    Args:
        steps: steps along the boundary.
        initial_gradient_eval_steps: points that estimate the first gradient; later ones take more, by the root of the
            step's number.
        max_gradient_eval_steps: the most points that estimate one gradient.
        starts: random images, at most, black-and-white and uniform by turns and blended with the clean one more and
            more; 50 are asked at a time, until one is adversarial. The nearest such is the start.
        start: a batch of images that may serve as start too, such as images of other classes.
        queries: forward passes per image, at most.

    Raises:
        RepulseError: if a count is below 1; when called, if foolbox is not installed.
    """

    steps: int = 10
    initial_gradient_eval_steps: int = 50
    max_gradient_eval_steps: int = 100
    starts: int = 500
    start: Tensor | None = None
    queries: int = 5000

    def __post_init__(self) -> None:
        for name in ("steps", "initial_gradient_eval_steps", "max_gradient_eval_steps", "starts", "queries"):
            if getattr(self, name) < 1:
                raise RepulseError(f"{name} must be at least 1, got {getattr(self, name)}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Walk until inside the ball or out of steps or queries; elsewhere the nearest adversarial image seen."""
        try:
            import foolbox  # noqa: F401
        except ImportError as error:
            raise RepulseError("HopSkipJump needs foolbox: pip install 'repulse[blackbox]'") from error
        best, passes = x.clone(), Passes.none(x)
        for row in range(len(x)):
            one = torch.tensor([row], device=x.device)
            oracle = _Oracle(model, x[one], y[one], threat, self.queries)
            with contextlib.suppress(_EnoughError):
                self._walk(oracle, noise.take(one))
            best[one] = oracle.nearest
            passes.add(one, forward=oracle.asked)
        return Perturbed(best, passes)

    def _walk(self, oracle: _Oracle, noise: Noise) -> None:
        oracle(oracle.unit)
        if self.start is not None:
            oracle(oracle.to_unit(self.start.to(oracle.unit)))
        for drawn in range(0, self.starts, _STARTS_AT_ONCE):
            if oracle.distance < float("inf"):
                break
            oracle(_blends(oracle.unit, min(_STARTS_AT_ONCE, self.starts - drawn), noise, _KEY - 1 - drawn))
        if not oracle.distance < float("inf"):
            return
        attack = _batched(self, oracle.threat.norm, noise)
        from foolbox.models.pytorch import PyTorchModel

        try:
            attack.run(
                PyTorchModel(oracle, bounds=(0, 1), device=oracle.unit.device),
                oracle.unit,
                _wrong(oracle.label),
                starting_points=oracle.to_unit(oracle.nearest),
            )
        except AssertionError:
            # Foolbox asserts that what was adversarial still is; a model that changes its mind ends the walk here.
            return


def _blends(clean: Float[Tensor, "1 *shape"], count: int, noise: Noise, key: int) -> Float[Tensor, "M *shape"]:
    """The clean image, blended with random ones from a little to wholly."""
    drawn = noise.uniform(clean.unsqueeze(1).expand(-1, count, *clean.shape[1:]), key)[0]
    drawn[::2] = drawn[::2].round()
    share = torch.linspace(1 / count, 1, count).to(drawn)
    return clean + column(share, drawn) * (drawn - clean)


class _EnoughError(Exception):
    """Nothing is left to ask for."""


class _Oracle(nn.Module):
    """One image's victim: foolbox asks it in pixels from 0 to 1; it counts, and keeps the nearest success."""

    def __init__(
        self,
        model: nn.Module,
        clean: Float[Tensor, "1 *shape"],
        label: Int64[Tensor, "1"],
        threat: Threat,
        queries: int,
    ) -> None:
        super().__init__()
        self.model, self.clean, self.label, self.threat, self.queries = model, clean, label, threat, queries
        self.unit = self.to_unit(clean).clamp(0, 1)
        self.nearest, self.distance, self.asked = clean, float("inf"), 0
        self.eval()

    def to_unit(self, images: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
        """Pixels from the threat's range to 0 to 1."""
        return (images - self.threat.low) / (self.threat.high - self.threat.low)

    def forward(self, unit: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """Logits; ends the walk inside the ball or when there are no queries left."""
        images = self.threat.low + (self.threat.high - self.threat.low) * unit
        images = images[: self.queries - self.asked]
        if len(images) == 0:
            raise _EnoughError
        with torch.inference_mode():
            logits = checked_logits(self.model(images), self.label.expand(len(images)))
            distance = self.threat.distance(images, self.clean.expand_as(images))
            distance = torch.where(logits.argmax(1) != self.label, distance, torch.inf)
            least = int(distance.argmin())
        self.asked += len(images)
        if distance[least] < self.distance:
            self.nearest, self.distance = images[least : least + 1].detach().clone(), float(distance[least])
        if self.distance <= self.threat.eps or len(images) < len(unit):
            raise _EnoughError
        return logits.clone()


def _wrong(label: Int64[Tensor, "1"]) -> Any:
    """Foolbox's predicate of success for any number of points around one image."""
    from eagerpy.astensor import astensor
    from foolbox.criteria import Criterion

    class Wrong(Criterion):
        def __repr__(self) -> str:
            return "Wrong()"

        def __call__(self, perturbed: Any, outputs: Any) -> Any:  # noqa: ARG002
            return astensor(outputs.raw.argmax(1) != label)

    return Wrong()


def _batched(settings: HopSkipJump, norm: Norm, noise: Noise) -> Any:
    """Foolbox's attack on one image, its gradients estimated from one batch of the image's own noise."""
    from eagerpy.astensor import astensor
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack

    class Batched(HopSkipJumpAttack):
        estimates = 0

        def approximate_gradients(self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any) -> Any:
            """Chen et al. 2020, eq. 16: directions, weighted by whether a small step along them stays adversarial."""
            self.estimates += 1
            image, length = x_advs.raw, delta.raw.item()
            draw, key = image.unsqueeze(1).expand(-1, steps, *image.shape[1:]), _KEY + self.estimates
            rays = (noise.normal(draw, key) if norm == "l2" else 2 * noise.uniform(draw, key) - 1)[0]
            rays = rays / column(rays.flatten(1).norm(dim=1), rays)
            points = (image + length * rays).clamp(0, 1)
            rays = (points - image) / (length + 1e-8)
            signs = 2 * is_adversarial(astensor(points)).raw.to(rays) - 1
            mean = signs.mean()
            # Where all points agree their mean would leave nothing.
            weights = signs if mean.abs() == 1 else signs - mean
            gradient = (column(weights, rays) * rays).mean(0, keepdim=True)
            return astensor(gradient / (gradient.norm() + 1e-12))

    return Batched(
        steps=settings.steps,
        initial_gradient_eval_steps=settings.initial_gradient_eval_steps,
        max_gradient_eval_steps=settings.max_gradient_eval_steps,
        constraint=norm,
    )
