"""Typed settings: the base of all of them, of training and of evaluation. Each is a group of flags and of YAML keys."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from repulse.common.units import Number

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]


class Settings(BaseModel):
    """A group of settings: unknown keys are errors, and nothing changes after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class RecipeSettings(Settings):
    """How a batch becomes what training minimises. What is left open has the recipe's own default."""

    name: str = Field("standard", description="standard, fgsm-rs, pgd, trades, ...; a wrong one lists them all.")
    norm: Literal["linf", "l2"] | None = Field(None, description="Norm of the ball to be robust in.")
    eps: Number | None = Field(None, ge=0, description="Radius of the ball, in pixels of [0, 1]; none: 8/255.")
    steps: int | None = Field(None, ge=1, description="Attack steps; none: 7 (pgd), 10 (trades).")
    step_size: Number | None = Field(None, gt=0, description="Attack step; none: 1.25 eps (fgsm-rs), else eps/4.")
    beta: float | None = Field(None, ge=0, description="Weight of the divergence (trades); none: 6.")
    strength: float | None = Field(
        None, ge=0, description="Weight of the penalty; none: 0.3 (input-gradient), 0.01 (jacobian)."
    )
    distance: float | None = Field(
        None,
        gt=0,
        description="How far a penalty looks, in the norm; none: 0.1 (slope, margin-slope), 1.5 (curvature).",
    )
    replays: int | None = Field(None, ge=1, description="Passes per batch (free); none: 8.")
    noise: float | None = Field(None, ge=0, description="How far n-fgsm starts from the image, in eps; none: 2.")
    delay: float | None = Field(
        None, ge=0, lt=1, description="Share of the steps that pass before the recipe begins; until then clean images."
    )
    sigma: float | None = Field(None, ge=0, description="Deviation of the noise, in pixels of [0, 1]; none: 0.25.")


class FitSettings(Settings):
    """The training loop."""

    epochs: int = Field(10, ge=1, description="Passes over the training images.")
    batch_size: int = Field(128, ge=1, description="Images per step, over all processes together.")
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    averaging: AveragingSettings = AveragingSettings()
    progressive: ProgressiveSettings = ProgressiveSettings()
    precision: Precision = Field("32-true", description="Lightning Fabric's precision; bf16-mixed on recent GPUs.")
    channels_last: bool = Field(True, description="Memory layout that makes convolutions faster.")
    compile: bool = Field(False, description="Compile the step with torch.compile.")
    sync_batch_norm: bool = Field(False, description="Batch statistics over all processes (GPU only).")
    accelerator: str = Field("auto", description="cpu, cuda, mps or auto.")
    devices: str = Field("auto", description="How many devices on this node, or auto.")
    nodes: int = Field(1, ge=1, description="Number of nodes, under torchrun.")


# The grid of the paper's figures: eps 0 to 32 of 255.
PAPER_GRID = tuple(level / 255 for level in (0, 2, 4, 8, 12, 16, 24, 32))


class EvaluationSettings(Settings):
    """Which attacks, how strong, on how many images."""

    norm: Literal["linf", "l2"] = Field("linf", description="Norm of the ball.")
    eps: Number = Field(8 / 255, ge=0, description="Radius of the ball, in pixels of [0, 1].")
    step_size: Number | None = Field(None, gt=0, description="Step of PGD; none: a quarter of eps (2/255 for 8/255).")
    attacks: Literal["paper", "quick", "standard", "adaptive"] = Field(
        "standard",
        description="PGD only; also AutoAttack's with small budgets; also AutoAttack's; also everything else.",
    )
    steps: tuple[int, ...] = Field((20, 100), description="Steps of PGD; each is an attack of its own.")
    restarts: int = Field(1, ge=1, description="Random starts of PGD on the logits.")
    curve: tuple[Number, ...] = Field(PAPER_GRID, description="Radii of the robustness curve; empty: no curve.")
    curve_steps: int = Field(20, ge=1, description="Steps of PGD at each point of the curve.")
    claimed: float | None = Field(None, ge=0, le=1, description="The robust accuracy that is claimed, in [0, 1].")
    expectation: int = Field(20, ge=1, description="Draws that a random model's answers are averaged over.")
    batch_size: int | None = Field(None, ge=1, description="Images attacked at once; none: 100 (CPU) or 500 (GPU).")
    gallery: int = Field(8, ge=0, description="Fooled images kept for the report.")
    seed: int = Field(0, ge=0, description="Seed of random starts.")


class CertificationSettings(Settings):
    """Which proof of robustness, at which radii, and whether it is attacked."""

    method: Literal["auto", "lipschitz", "linf-distance", "smoothing"] = Field(
        "auto", description="What is proved by; auto: what the network was built for. Smoothing takes any model."
    )
    radii: tuple[Number, ...] = Field((), description="Radii of the table, in pixels of [0, 1]; empty: usual ones.")
    sigma: Number | None = Field(
        None, gt=0, description="Smoothing: deviation of the noise; none: the training's, else 0.25."
    )
    n: int = Field(10_000, ge=1, description="Smoothing: noisy draws per image that estimate; each is a pass.")
    n0: int = Field(100, ge=1, description="Smoothing: noisy draws per image that choose the class.")
    alpha: float = Field(0.001, gt=0, lt=1, description="Smoothing: probability that a certificate is wrong.")
    attack: bool = Field(False, description="Attack every image at its own certified radius, and beyond.")
    ensemble: Literal["quick", "standard", "adaptive"] = Field("adaptive", description="Attacks of --attack.")
    draws: int = Field(20, ge=1, description="Smoothing: draws of the smoothed classifier that attacks see.")
    batch_size: int | None = Field(None, ge=1, description="Images at once; none: 100 (CPU) or 500 (GPU).")
    seed: int = Field(0, ge=0, description="Seed of noise and of random starts.")
