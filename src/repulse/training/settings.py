"""How training goes: optimiser, schedule, average, precision, devices."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from repulse.common.settings import Settings

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]


class OptimiserSettings(Settings):
    """How the weights move."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="Stochastic gradient descent, or AdamW.")
    learning_rate: float = Field(0.1, gt=0, description="Peak learning rate; the schedule scales it.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; beta1 of AdamW.")
    nesterov: bool = Field(True, description="Nesterov momentum (SGD).")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty (SGD) or decoupled weight decay (AdamW).")
    bias_factor: float = Field(
        1.0,
        gt=0,
        description="Factor on the learning rate of batch-norm biases; their weight decay shrinks by it.",
    )
    backbone_factor: float = Field(
        1.0, ge=0, description="Factor on the learning rate below the backbone's last layer; 0: frozen."
    )
    clip_norm: float | None = Field(None, gt=0, description="Largest L2 norm of a gradient; none: no clipping.")


class ScheduleSettings(Settings):
    """How the learning rate changes over the steps, as a factor on the peak."""

    name: Literal["one-cycle", "cosine", "cyclic", "constant"] = Field(
        "one-cycle",
        description="Linear up then down; warm-up then cosine; up and down again and again; or constant.",
    )
    start: float = Field(0.2, ge=0, le=1, description="First factor (one-cycle, cosine), lowest factor (cyclic).")
    end: float = Field(0.05, ge=0, le=1, description="Last factor (one-cycle, cosine).")
    peak: float = Field(0.25, ge=0, le=1, description="Share of the steps until the peak (one-cycle, cosine).")
    half_cycle: int = Field(2000, ge=1, description="Steps from lowest to highest (cyclic).")


class AveragingSettings(Settings):
    """Which average of the weights is evaluated."""

    name: Literal["none", "ema", "lookahead"] = Field(
        "none",
        description="The last weights; their moving average; or an average that training also restarts from.",
    )
    decay: float = Field(0.999, gt=0, lt=1, description="Decay per step of the moving average (ema).")


class ProgressiveSettings(Settings):
    """Smaller images in the first epochs, which cost less."""

    size: int | None = Field(None, ge=1, description="Side of the small images, in pixels; none: all keep their size.")
    share: float = Field(0.5, ge=0, le=1, description="Share of the epochs that see small images.")


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
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    averaging: AveragingSettings = AveragingSettings()
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
