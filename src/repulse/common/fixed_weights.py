"""Weights that a layer computes anew at every call, computed once: attacks call a model thousands of times."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize


def fix_weights(model: nn.Module) -> nn.Module:
    """Replace what is parametrised (`torch.nn.utils.parametrize`) by the values of now, in place.

    `remove_parametrizations` would do it to a copy's original as well: the two share the class that it changes.

    Args:
        model: in evaluation mode; it is changed and returned, so give a copy.
    """
    for module in [each for each in model.modules() if parametrize.is_parametrized(each)]:
        names = list(module.parametrizations)  # type: ignore[arg-type]
        with torch.no_grad():
            values = {name: getattr(module, name).detach().clone() for name in names}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return model


def frozen(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that computes the same, faster, with ordinary weights; any exporter takes it.

    Training it would leave what a parametrisation ensures, such as orthogonal matrices.
    """
    return fix_weights(copy.deepcopy(model).eval())
