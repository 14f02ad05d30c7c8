"""Optimisers, learning-rate schedules and weight averages."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from repulse.models.pretrained import last_layer
from repulse.training.settings import AveragingSettings, OptimiserSettings, ScheduleSettings


def make_optimiser(model: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """The optimiser of all parameters that ask for gradients.

    Batch-norm biases form a group of their own when `bias_factor` is not 1: their learning rate is multiplied by it and
    their weight decay divided, so that what decays per step stays the same (Jordan 2024, section 3.4). All layers of
    `model.backbone` but its last learn at `backbone_factor` times the rate; at 0 they are frozen, and left out.
    """
    below = _below_last(model) if settings.backbone_factor != 1 else set()
    if settings.backbone_factor == 0:
        for parameter in model.parameters():
            if id(parameter) in below:
                parameter.requires_grad_(False)
    norm_biases = {
        id(module.bias)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.bias is not None
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for lower in (False, True):
        for is_bias in (False, True):
            own = [p for p in trained if (id(p) in below) == lower and (id(p) in norm_biases) == is_bias]
            faster = settings.bias_factor if is_bias else 1.0
            slower = settings.backbone_factor if lower else 1.0
            if own:
                decay = settings.weight_decay / faster
                groups.append({"params": own, "factor": faster * slower, "weight_decay": decay})
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            # PyTorch refuses Nesterov without momentum; plain SGD is what is then meant.
            nesterov=settings.nesterov and settings.momentum > 0,
        )
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999))


def _below_last(model: nn.Module) -> set[int]:
    """The ids of the parameters of the backbone below its last layer; none if there is no backbone."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return set()
    last = {id(parameter) for parameter in last_layer(backbone).parameters()}
    return {id(parameter) for parameter in backbone.parameters()} - last


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, each times its own factor."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["factor"]


def schedule_factor(settings: ScheduleSettings, step: int, total: int) -> float:
    """The factor on the peak learning rate at `step` of `total` steps, in [0, 1].

    - `one-cycle`: linear from `start` to 1 at `peak * total`, then linear to `end`.
    - `cosine`: linear from `start` to 1 at `peak * total`, then half a cosine to `end` (Loshchilov & Hutter 2017).
    - `cyclic`: linear from `start` to 1 in `half_cycle` steps and back, for ever (Smith 2017; the paper's).
    - `constant`: 1.
    """
    if settings.name == "constant":
        return 1.0
    if settings.name == "cyclic":
        phase = step % (2 * settings.half_cycle) / settings.half_cycle
        return settings.start + (1 - settings.start) * (phase if phase <= 1 else 2 - phase)
    turn = settings.peak * total
    if step < turn:
        return settings.start + (1 - settings.start) * step / turn
    down = (step - turn) / max(total - turn, 1)
    if settings.name == "cosine":
        down = (1 - math.cos(math.pi * down)) / 2
    return 1 + (settings.end - 1) * down


class WeightAverage:
    """A moving average of weights and of floating-point buffers (batch-norm statistics).

    - `ema`: `average <- decay * average + (1 - decay) * weights` after every step; training does not see it.
    - `lookahead`: every fifth step with decay `0.95^5 (step / total)^3`, and training goes on from the average
      (Zhang et al. 2019, in the form of Jordan 2024, section 3.4).
    """

    def __init__(self, model: nn.Module, settings: AveragingSettings) -> None:
        self.settings = settings
        kept = {} if settings.name == "none" else _floating(model)
        self.average = {name: value.detach().clone() for name, value in kept.items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, total: int) -> None:
        """Take in the weights after step number `step` (from 1) of `total`."""
        if self.settings.name == "none":
            return
        if self.settings.name == "ema":
            # A short run must not be dominated by its random start, so the decay rises from 0 to its value.
            self._blend(model, min(self.settings.decay, (1 + step) / (10 + step)))
        elif step == total:
            self._blend(model, 1.0)
            self.copy_to(model)
        elif step % 5 == 0:
            self._blend(model, 0.95**5 * (step / total) ** 3)
            self.copy_to(model)

    def _blend(self, model: nn.Module, decay: float) -> None:
        for name, value in _floating(model).items():
            self.average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights; without an average it keeps its own."""
        own = _floating(model)
        for name, value in self.average.items():
            own[name].copy_(value)


def _floating(model: nn.Module) -> dict[str, Tensor]:
    # Frozen parameters and constant buffers take part too: their average is themselves.
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
