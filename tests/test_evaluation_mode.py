"""A model that is looked at in evaluation mode is left as it was."""

from __future__ import annotations

import pytest
from torch import nn

from repulse.attacks.attack import attackable
from repulse.common.evaluation_mode import evaluation_mode


def frozen_norm() -> nn.Sequential:
    """In training, but for its norm."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    model[1].eval()
    return model


@pytest.mark.parametrize("context", [evaluation_mode, attackable])
def test_every_module_is_in_its_own_mode_again(context):
    model = frozen_norm()
    with context(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True]
    assert model.training


@pytest.mark.parametrize("context", [evaluation_mode, attackable])
def test_it_is_left_so_after_an_error(context):
    model = frozen_norm()
    with pytest.raises(ZeroDivisionError), context(model):
        raise ZeroDivisionError
    assert [module.training for module in model] == [True, False, True]


def test_parameters_ask_for_gradients_again_as_they_did():
    model = frozen_norm()
    model[0].weight.requires_grad_(False)
    with attackable(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
