"""Which average of the weights is evaluated, and whether training goes on from it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from repulse.common.settings import Choice, Choices


class Averaging(Choice):
    """A kind of average with its settings: a subclass has a field for each of them, and writes `decay_at`."""

    def decay_at(self, step: int, total: int) -> float | None:
        """What stays of the average after step number `step` (from 1) of `total`; None: it is left as it is."""
        raise NotImplementedError

    @property
    def restarts(self) -> bool:
        """Whether training goes on from the average whenever that changes."""
        return False


AVERAGES: Choices[Averaging] = Choices("averaging")


@AVERAGES.register("none")
class NoAverage(Averaging):
    """The last weights."""

    def decay_at(self, step: int, total: int) -> None:  # noqa: ARG002
        """There is nothing to change."""
        return


@AVERAGES.register("ema")
class MovingAverage(Averaging):
    """`average <- decay * average + (1 - decay) * weights` after every step; training does not see it."""

    decay: float = Field(0.999, gt=0, lt=1, description="Decay per step of the moving average.")

    def decay_at(self, step: int, total: int) -> float:  # noqa: ARG002
        """A short run must not be dominated by its random start, so the decay rises from 0 to its value."""
        return min(self.decay, (1 + step) / (10 + step))


@AVERAGES.register("lookahead")
class Lookahead(Averaging):
    """Every fifth step with decay `0.95^5 (step / total)^3`, and training goes on from the average.

    Source: Zhang et al. 2019, in the form of Jordan 2024, section 3.4. The last step brings the average back.
    """

    def decay_at(self, step: int, total: int) -> float | None:
        """Ever slower; at the end all of it stays."""
        if step == total:
            return 1.0
        return None if step % 5 else 0.95**5 * (step / total) ** 3

    @property
    def restarts(self) -> bool:
        """It does."""
        return True


class WeightAverage:
    """An average of weights and of floating-point buffers (batch-norm statistics)."""

    def __init__(self, model: nn.Module, kind: Averaging) -> None:
        self.kind = kind
        kept = {} if isinstance(kind, NoAverage) else _floating(model)
        self.average = {name: value.detach().clone() for name, value in kept.items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, total: int) -> None:
        """Take in the weights after step number `step` (from 1) of `total`."""
        decay = self.kind.decay_at(step, total)
        if decay is None:
            return
        for name, value in _floating(model).items():
            self.average[name].lerp_(value, 1 - decay)
        if self.kind.restarts:
            self.copy_to(model)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights; without an average it keeps its own."""
        own = _floating(model)
        for name, value in self.average.items():
            own[name].copy_(value)


def _floating(model: nn.Module) -> dict[str, Tensor]:
    # Frozen parameters and constant buffers take part too: their average is themselves.
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
