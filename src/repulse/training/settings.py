"""How training goes: optimiser, schedule, average, precision, devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from repulse.common.settings import Choices, OneOf, Settings
from repulse.training.averages import AVERAGES, Averaging, NoAverage
from repulse.training.optimisers import OPTIMISERS, SGD, Optimiser
from repulse.training.schedules import SCHEDULES, OneCycle, Schedule

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]


class ProgressiveSettings(Settings):
    """Smaller images in the first epochs, which cost less."""

    size: int | None = Field(None, ge=1, description="Side of the small images, in pixels; none: all keep their size.")
    share: float = Field(0.5, ge=0, le=1, description="Share of the epochs that see small images.")


# What files from before optimisers, schedules and averages had settings of their own say of each of them.
_OLDER = {
    "optimiser": {"learning_rate", "momentum", "nesterov", "weight_decay", "bias_factor", "clip_norm"},
    "schedule": {"start", "end", "peak", "half_cycle"},
    "averaging": {"decay"},
}
_KINDS: dict[str, Choices[Any]] = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "averaging": AVERAGES}


class FitSettings(Settings):
    """The training loop."""

    epochs: int = Field(10, ge=1, description="Passes over the training images.")
    least_steps: int = Field(
        0, ge=0, description="Train for more epochs where there are so few images that they take fewer steps than this."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many epochs without a better validation accuracy; delay and warm-up of a recipe do "
        "not count.",
    )
    batch_size: int = Field(128, ge=1, description="Images per step, over all processes together.")
    optimiser: Annotated[Optimiser, OneOf(OPTIMISERS, "sgd")] = Field(SGD(), description="How the weights move.")
    schedule: Annotated[Schedule, OneOf(SCHEDULES, "one-cycle")] = Field(
        OneCycle(), description="How the learning rate changes over the steps."
    )
    averaging: Annotated[Averaging, OneOf(AVERAGES, "ema")] = Field(
        NoAverage(), description="Which average of the weights is evaluated."
    )
    progressive: ProgressiveSettings = ProgressiveSettings()
    cutmix: float = Field(
        0.0, ge=0, le=1, description="Share of the batches in which images get a rectangle of another one (CutMix)."
    )
    precision: Literal["auto"] | Precision = Field(
        "32-true", description="Fabric's precision; auto: what the machine is fast in."
    )
    channels_last: bool = Field(True, description="Memory layout that makes convolutions faster.")
    compile: bool = Field(False, description="Compile the step with torch.compile.")
    sync_batch_norm: bool = Field(False, description="Batch statistics over all processes (GPU only).")
    accelerator: str = Field("auto", description="cpu, cuda, mps or auto.")
    devices: str = Field("auto", description="How many devices on this node, or auto.")
    wandb: str | None = Field(None, description="Project of Weights & Biases to log to; none: nothing is sent.")
    nodes: int = Field(1, ge=1, description="Number of nodes, under torchrun.")

    @model_validator(mode="before")
    @classmethod
    def _from_older_files(cls, values: Any) -> Any:
        """Older files say the settings of all kinds, whichever was chosen; those of the others did nothing."""
        if not isinstance(values, Mapping):
            return values
        # Such files are complete, and no kind of schedule has all of these settings.
        schedule, given = values.get("schedule"), dict(values)
        if not isinstance(schedule, Mapping) or not _OLDER["schedule"] <= schedule.keys():
            return values
        for key, every in _OLDER.items():
            of = given.get(key)
            if isinstance(of, Mapping) and of.get("name") in _KINDS[key]:
                own = _KINDS[key][of["name"]].model_fields
                given[key] = {name: value for name, value in of.items() if name in own or name not in every}
        return given
