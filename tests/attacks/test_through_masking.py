"""Defences that hide the gradient of a linear model, whose radius is known, are broken as the model without them."""

import pytest
import torch
import torch.nn.functional as F
from known import images, linear, radius
from torch import nn

from repulse import evaluate
from repulse.attacks import APGD, OBJECTIVES, Threat, ThroughMasking
from repulse.attacks.smooth_backward import SmoothBackward
from repulse.common.errors import RepulseError
from repulse.evaluation.gradient_free import GradientFree, has_gradient


class Around(nn.Module):
    """A defence around a linear model: of its image, or of its logits."""

    def __init__(self, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        self.before, self.after, self.inner = before, after, linear()

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


def winners(logits):
    """The class and nothing else, as votes are counted."""
    vote = F.one_hot(logits.argmax(1), logits.shape[1])
    return torch.stack([vote, vote]).sum(0).float()


def against(logits):
    """Logits against the best, hardly any of which lie inside what is let through."""
    return (logits - logits.max(1, keepdim=True).values + 1e-3).clamp(0, 1e-3)


BEFORE = {
    "rounded": lambda x: (x * 64).round() / 64,
    "staircase": lambda x: torch.floor(x * 64) / 64 + 1 / 128,
    "saw": lambda x: x - (64 * x).frac() / 64 + 1 / 128,
    "detached": lambda x: x.detach() + 0 * x,
    "cut off": lambda x: x.detach(),
    "detached and rounded": lambda x: (x.detach() * 64).round() / 64 + 0 * x,
    "sine": lambda x: x + 0.004 * torch.sin(4000 * x),
    "two levels": lambda x: sum((x > level / 64).float() for level in range(1, 65)) / 64,
}
AFTER = {
    "class only": winners,
    "class only, chosen": lambda z: torch.where(z >= z.max(1, keepdim=True).values, 1.0, 0.0),
    "clamped": against,
    "saturated": lambda z: (1e4 * z).softmax(1),
}
DEFENCES = {
    **{name: {"before": defence} for name, defence in BEFORE.items()},
    **{name: {"after": defence} for name, defence in AFTER.items()},
}


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defence_keeps_no_more_than_the_model_without_it(name):
    model = Around(**DEFENCES[name])
    x, _ = images(linear(), count=25)
    y = linear()(x).argmax(1)
    y = torch.where(model(x).argmax(1) == y, y, model(x).argmax(1))
    truth = radius(linear(), x, linear()(x).argmax(1), "linf")
    eps = 0.06
    fooled = ThroughMasking()(model, x, y, Threat("linf", eps)).fooled
    # What lies in front moves pixels by up to 1/64.
    assert fooled[truth < (0.8 if name in BEFORE else 0.95) * eps].all()
    assert not fooled[truth > eps + (0.016 if name in BEFORE else 1e-6)].any()
    openly = APGD(OBJECTIVES["margin"], steps=40)
    plain = openly(model if has_gradient(model, x) else GradientFree(model), x, y, Threat("linf", eps)).fooled
    assert fooled.sum() > plain.sum()


def test_a_smooth_backward_pass_leaves_the_answers():
    model = Around(BEFORE["detached and rounded"])
    x, y = images(linear(), count=5)
    asked = x.clone().requires_grad_()
    logits = SmoothBackward(model)(asked)
    torch.testing.assert_close(logits.detach(), model(x), atol=1e-6, rtol=0)
    (slope,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), asked)
    expected = linear()[1].weight[y].reshape(slope.shape)
    torch.testing.assert_close(slope, expected.detach(), atol=1e-5, rtol=1e-5)


def test_passes_are_counted_truly():
    class Counting(Around):
        count = 0

        def forward(self, x):
            self.count += len(x)
            return super().forward(x)

    model = Counting(BEFORE["rounded"])
    x, y = images(linear(), count=6)
    result = ThroughMasking(steps=3, samples=2)(model, x, y, Threat("linf", 0.01))
    assert model.count == result.forward_passes + 1 + len(x)


class Outside(nn.Module):
    """A linear model that is run by NumPy, as other runtimes are."""

    def forward(self, x):
        inner = linear()[1]
        weight, bias = inner.weight.detach().double().numpy(), inner.bias.detach().double().numpy()
        return torch.from_numpy(x.detach().flatten(1).double().numpy() @ weight.T + bias).float()


def test_a_model_that_leaves_pytorch_costs_a_probe_and_no_climb():
    x, _ = images(linear(), count=12)
    model = GradientFree(Outside())
    result = ThroughMasking()(model, x, model(x).argmax(1), Threat("linf", 0.06))
    assert not result.fooled.any()
    assert result.passes.forward.max() <= 4


@pytest.mark.parametrize("name", ["cut off", "rounded"])
def test_an_evaluation_without_gradients_makes_its_own(name):
    model = Around(**DEFENCES[name])
    inner = linear()
    x, _ = images(inner, count=25)
    y = inner(x).argmax(1)
    found = evaluate(model, x, y, eps=0.06, attacks=["through-masking"], curve=(), gallery=0).record
    robust = (radius(inner, x, y, "linf") > 0.06).double().mean().item()
    assert abs(found.worst_case_accuracy - robust) <= 0.08


def test_impossible_settings_are_refused():
    with pytest.raises(RepulseError, match=r"^samples must be at least 2, got 0$"):
        ThroughMasking(samples=0)
    with pytest.raises(RepulseError, match=r"^samples come in pairs, got 3$"):
        ThroughMasking(samples=3)
