"""How the learning rate changes over the steps, as a factor on its peak."""

from __future__ import annotations

import math

from pydantic import Field

from repulse.common.settings import Choice, Choices


class Schedule(Choice):
    """A schedule with its settings: a subclass has a field for each of them, and writes `factor`."""

    def factor(self, step: int, total: int) -> float:
        """The factor on the peak learning rate at `step` of `total` steps, in [0, 1]."""
        raise NotImplementedError


SCHEDULES: Choices[Schedule] = Choices("schedule")


@SCHEDULES.register("one-cycle")
class OneCycle(Schedule):
    """Linear from `start` to 1 at `peak * total`, then linear to `end`."""

    start: float = Field(0.2, ge=0, le=1, description="First factor on the learning rate; of a cycle, the lowest.")
    end: float = Field(0.05, ge=0, le=1, description="Last factor on the learning rate.")
    peak: float = Field(0.25, ge=0, le=1, description="Share of the steps until the peak.")

    def factor(self, step: int, total: int) -> float:
        """Up, then down."""
        turn = self.peak * total
        if step < turn:
            return self.start + (1 - self.start) * step / turn
        return 1 + (self.end - 1) * self.fallen((step - turn) / max(total - turn, 1))

    def fallen(self, passed: float) -> float:
        """Which share of the way down is done when a share of its steps has passed."""
        return passed


@SCHEDULES.register("cosine")
class Cosine(OneCycle):
    """Linear from `start` to 1 at `peak * total`, then half a cosine to `end` (Loshchilov & Hutter 2017)."""

    def fallen(self, passed: float) -> float:
        """Slowly at both ends."""
        return (1 - math.cos(math.pi * passed)) / 2


@SCHEDULES.register("cyclic")
class Cyclic(Schedule):
    """Linear from `start` to 1 in `half_cycle` steps and back, for ever (Smith 2017; the paper's)."""

    start: float = Field(0.2, ge=0, le=1, description="First factor on the learning rate; of a cycle, the lowest.")
    half_cycle: int = Field(2000, ge=1, description="Steps from the lowest factor to the highest.")

    def factor(self, step: int, total: int) -> float:  # noqa: ARG002
        """Up and down again and again."""
        phase = step % (2 * self.half_cycle) / self.half_cycle
        return self.start + (1 - self.start) * (phase if phase <= 1 else 2 - phase)


@SCHEDULES.register("constant")
class Constant(Schedule):
    """Always 1."""

    def factor(self, step: int, total: int) -> float:  # noqa: ARG002
        """The peak."""
        return 1.0
