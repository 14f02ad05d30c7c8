"""How the weights move."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import nn

from repulse.common.settings import Choice, Choices
from repulse.models.pretrained import last_layer


class Optimiser(Choice):
    """An optimiser with its settings: a subclass has a field for each of its own, and writes `of`."""

    learning_rate: float = Field(0.1, gt=0, description="Peak learning rate; the schedule scales it.")
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

    def of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of groups of parameters, each with its weight decay."""
        raise NotImplementedError


OPTIMISERS: Choices[Optimiser] = Choices("optimiser")


@OPTIMISERS.register("sgd")
class SGD(Optimiser):
    """Stochastic gradient descent."""

    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; beta1 of AdamW.")
    nesterov: bool = Field(True, description="Nesterov momentum.")

    def of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """PyTorch refuses Nesterov without momentum; plain SGD is what is then meant."""
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum, nesterov=nesterov)


@OPTIMISERS.register("adamw")
class AdamW(Optimiser):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; beta1 of AdamW.")

    def of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """With PyTorch's beta2."""
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.momentum, 0.999))


def make_optimiser(model: nn.Module, kind: Optimiser) -> torch.optim.Optimizer:
    """The optimiser of all parameters that ask for gradients.

    Batch-norm biases form a group of their own when `bias_factor` is not 1: their learning rate is multiplied by it and
    their weight decay divided, so that what decays per step stays the same (Jordan 2024, section 3.4). All layers of
    `model.backbone` but its last learn at `backbone_factor` times the rate; at 0 they are frozen, and left out.
    """
    below = _below_last(model) if kind.backbone_factor != 1 else set()
    if kind.backbone_factor == 0:
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
            faster = kind.bias_factor if is_bias else 1.0
            slower = kind.backbone_factor if lower else 1.0
            if own:
                decay = kind.weight_decay / faster
                groups.append({"params": own, "factor": faster * slower, "weight_decay": decay})
    return kind.of(groups)


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
