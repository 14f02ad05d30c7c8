"""Defences that hide the gradient of a linear model, whose radius is known, are broken as the model without them."""

import pytest
import torch
from known import images, linear, radius
from torch import nn

from repulse.attacks import APGD, OBJECTIVES, Threat, ThroughMasking
from repulse.attacks.through_masking import Sloped
from repulse.common.errors import RepulseError


class Before(nn.Module):
    """A defence in front of a linear model."""

    def __init__(self, defence):
        super().__init__()
        self.defence, self.inner = defence, linear()

    def forward(self, x):
        return self.inner(self.defence(x))


DEFENCES = {
    "rounded": lambda x: (x * 64).round() / 64,
    "staircase": lambda x: torch.floor(x * 64) / 64 + 1 / 128,
    "detached": lambda x: x.detach() + 0 * x,
    "detached and rounded": lambda x: (x.detach() * 64).round() / 64 + 0 * x,
    "sine": lambda x: x + 0.004 * torch.sin(4000 * x),
}


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defence_keeps_no_more_than_the_model_without_it(name):
    model = Before(DEFENCES[name])
    x, _ = images(linear(), count=25)
    y = model(x).argmax(1)
    truth = radius(linear(), x, linear()(x).argmax(1), "linf")
    eps = 0.06
    # Averaging alone smooths a sine: its slope is 16 times that of the pixel below it.
    attack = ThroughMasking(samples=32) if name == "sine" else ThroughMasking()
    fooled = attack(model, x, y, Threat("linf", eps)).fooled
    # The defence itself moves pixels by up to 1/128 or 0.004.
    assert fooled[truth < (0.6 if name == "sine" else 0.8) * eps].all()
    assert not fooled[truth > eps + 0.01].any()
    plain = APGD(OBJECTIVES["margin"], steps=40)(model, x, y, Threat("linf", eps)).fooled
    assert fooled.sum() > plain.sum()


def test_the_sloped_twin_answers_alike():
    model = Before(DEFENCES["detached and rounded"])
    x, y = images(linear(), count=5)
    asked = x.clone().requires_grad_()
    logits = Sloped(model)(asked)
    torch.testing.assert_close(logits.detach(), model(x), atol=1e-6, rtol=0)
    (slope,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), asked)
    expected = linear()[1].weight[y].reshape(slope.shape)
    torch.testing.assert_close(slope, expected.detach(), atol=1e-5, rtol=1e-5)


def test_passes_are_counted_truly():
    class Counting(Before):
        count = 0

        def forward(self, x):
            self.count += len(x)
            return super().forward(x)

    model = Counting(DEFENCES["rounded"])
    x, y = images(linear(), count=6)
    result = ThroughMasking(steps=3, samples=2)(model, x, y, Threat("linf", 0.01))
    assert model.count == result.forward_passes + 1 + len(x)


def test_impossible_settings_are_refused():
    with pytest.raises(RepulseError, match=r"^samples must be at least 1, got 0$"):
        ThroughMasking(samples=0)
