"""Attack through what hides a gradient: steps get a slope, and jagged gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from repulse.attacks.apgd import Climb as AutoClimb
from repulse.attacks.ascent import ascend
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.minimum_norm import at_least
from repulse.attacks.objectives import OBJECTIVES, margin
from repulse.attacks.standing import Climb, Standing
from repulse.common.errors import RepulseError

_STEPS: dict[Any, Callable[..., Tensor]] = {
    function: getattr(torch, name)
    for name in ("round", "floor", "ceil", "trunc", "sign")
    for function in (getattr(torch, name), getattr(Tensor, name))
}
_DETACH = (Tensor.detach, torch.detach)


class _Sloped(TorchFunctionMode):
    """Within this mode, functions that go in steps pass gradients on as if they were not there; so does `detach`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DETACH:
            return args[0]
        if func in _STEPS and args[0].requires_grad:
            x = args[0]
            # The value is the function's, the slope that of the identity; for a sign, that of a steep tanh.
            slope = torch.tanh(4 * x) if _STEPS[func] is torch.sign else x
            return slope + (func(*args, **kwargs) - slope).detach_()
        return func(*args, **kwargs)


class Sloped(nn.Module):
    """The same logits, with a backward pass that is straight through rounding, floor, sign and detached parts.

    Straight-through estimation (Bengio et al. 2013), as backward pass differentiable approximation (Athalye et al.
    2018). Functions inside TorchScript are not seen.

    Args:
        model: maps images to logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        with _Sloped():
            logits: Tensor = self.model(x)
        return logits


@ATTACKS.register("through-masking")
@dataclass(frozen=True)
class ThroughMasking(Attack):
    """Climb the margin on a backward pass made smooth, then on gradients averaged over the neighbourhood.

    The model that is asked is the model itself: what falls has fallen. First Auto-PGD with straight-through gradients
    (see `Sloped`); then steps with momentum along the mean of such gradients at random points nearby, as jagged
    surfaces need (Smilkov et al. 2017).

    Args:
        steps: of each of the two.
        samples: points nearby per step.
        width: how far away they lie in each pixel, at most, in multiples of eps (L-inf), or of eps over the root of the
            number of pixels (L2).

    Raises:
        RepulseError: if a count is below 1, or width is not positive.
    """

    steps: int = 40
    samples: int = 8
    width: float = 0.5

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), samples=(self.samples, 1))
        if not self.width > 0:
            raise RepulseError(f"width must be positive, got {self.width:g}")

    def search(self, standing: Standing) -> None:
        """Both climbs, on what still stands."""
        model = standing.model
        standing.model = Sloped(model)
        try:
            rows = standing.rows
            if len(rows):
                start = standing.random_point(rows, "through-masking")
                AutoClimb(standing, standing.value(OBJECTIVES["margin"]), rows, start).run(self.steps)
            self._averaged(standing)
        finally:
            standing.model = model

    def _averaged(self, standing: Standing) -> None:
        threat, rows, taken = standing.threat, standing.rows, 0
        clean = standing.clean[rows]
        wide = self.width * threat.eps / (1.0 if threat.norm == "linf" else clean.shape[1:].numel() ** 0.5)

        def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal taken
            y, noise, total = standing.labels[rows], standing.noise.take(rows), torch.zeros_like(images[:, :0].sum())
            for sample in range(self.samples):
                moved = wide * (2 * noise.uniform(images, "through-masking", taken, sample) - 1)
                total = total + margin(standing.model((images + moved).clamp(threat.low, threat.high)), y)
            standing.passes.add(rows, forward=self.samples, backward=self.samples - 1)
            taken += 1
            with torch.no_grad():
                logits: Tensor = standing.model(images)
            return total / self.samples, logits

        climb = Climb(standing, value, rows)
        images = ascend(climb, clean, clean, threat, self.steps, threat.eps / 10, momentum=0.9, keep=climb.keep)
        standing.ask(images, climb.rows)
