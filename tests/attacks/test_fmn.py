"""FMN on models whose nearest boundary is known, and what it promises."""

import pytest
import torch
from known import digits, images, linear, radius
from torch import nn

from repulse.attacks import APGD, FMN, OBJECTIVES, Threat
from repulse.attacks.noise import Noise
from repulse.common.errors import RepulseError


def smallest(model, x, y, norm, attack=None, **pixels):
    attack = attack or FMN(targets=4)
    return attack.smallest(model, x, y, Threat(norm, 0.0, **pixels), Noise(0, torch.arange(len(x))))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_distance_of_a_linear_model_is_its_closed_form(norm, classes):
    model = linear(classes)
    x, y = images(model)
    found = smallest(model, x, y, norm)
    torch.testing.assert_close(found.distance, radius(model, x, y, norm), rtol=0.01, atol=0)
    assert (model(found.images).argmax(1) != y).all()
    assert torch.equal(found.distance, Threat(norm, 0.0).distance(found.images, x))


def cut_radius(model, x, y, norm):
    """Bisection of the radius, where the range of pixels cuts: the farthest point of each ball is known (two classes).

    L-inf: clip(x + r sign(w)). L2: clip(x + t w), of which the least t that crosses gives the least length (KKT).
    """
    weight = model[1].weight.detach().double()
    normal = (weight[1 - y] - weight[y]).reshape(x.shape)
    direction = normal.sign() if norm == "linf" else normal
    bias = model[1].bias.detach().double()
    level = bias[y] - bias[1 - y]
    clean = x.double()
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), 1e3, dtype=torch.float64)

    def point(length):
        return (clean + length.reshape(-1, 1, 1, 1) * direction).clamp(0, 1)

    for _ in range(80):
        middle = (low + high) / 2
        crossed = (normal * point(middle)).flatten(1).sum(1) > level
        low, high = torch.where(crossed, low, middle), torch.where(crossed, middle, high)
    distance = Threat(norm, 0.0).distance(point(high), clean)
    return torch.where(high < 999, distance, torch.inf).float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_the_range_of_pixels_cuts_the_distance_is_still_the_least(norm):
    model = linear(2, pixels=36)
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(3)).round()
    x[::2] = (x[::2] - 0.03).abs()
    y = model(x).argmax(1)
    truth = cut_radius(model, x, y, norm)
    # Without the cut the nearest boundary would be nearer.
    assert (truth / radius(model, x, y, norm)).median() > 1.1
    found = smallest(model, x, y, norm)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    torch.testing.assert_close(found.distance, truth, rtol=0.01, atol=0)


def test_other_ranges_of_pixels_scale_the_distances():
    model = linear()
    x, y = images(model)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        wide[1].weight.copy_(model[1].weight / 255)
        wide[1].bias.copy_(model[1].bias)
    found = smallest(wide, 255 * x, y, "l2", high=255.0)
    torch.testing.assert_close(found.distance, 255 * radius(model, x, y, "l2"), rtol=0.01, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    model = linear()
    x, y = images(model)
    truth = radius(model, x, y, norm)
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    torch.testing.assert_close(smallest(model, x, y, norm).distance, truth, rtol=0.01, atol=0)


def test_an_image_that_is_wrong_already_has_distance_0_and_one_never_fooled_has_none():
    model = linear()
    x, y = images(model)
    wrong = y.clone()
    wrong[:5] = (y[:5] + 1) % 3
    found = smallest(model, x, wrong, "linf")
    assert (found.distance[:5] == 0).all()
    assert torch.equal(found.images[:5], x[:5])
    assert (found.distance[5:] > 0).all()

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]

    never = smallest(Constant(), x, torch.zeros_like(y), "l2")
    assert never.distance.isinf().all()
    assert torch.equal(never.images, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_run_gives_the_robust_accuracy_that_apgd_needs_a_run_for_at_every_eps(norm):
    model, x, y = digits(epochs=4)
    x, y = x[:60], y[:60]
    distance = smallest(model, x, y, norm, FMN()).distance
    for share in (0.3, 0.6):
        eps = distance.quantile(share).item()
        other = APGD(OBJECTIVES["margin"], steps=50)(model, x, y, Threat(norm, eps)).fooled.sum().item()
        assert (distance <= eps).sum().item() >= other - 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_as_an_attack_it_fools_where_its_distance_is_below_eps_and_stops_there(norm):
    model = linear()
    x, y = images(model)
    truth = radius(model, x, y, norm)
    eps = truth.median().item()
    attack = FMN(targets=2)
    result = attack(model, x, y, Threat(norm, eps))
    assert not result.fooled[truth > 1.0001 * eps].any()
    assert result.fooled[truth < 0.99 * eps].all()
    whole = smallest(model, x, y, norm, attack)
    assert result.backward_passes < 0.6 * whole.backward_passes


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_distance_of_an_image_does_not_depend_on_its_batch(norm):
    model, x, y = digits(epochs=2)
    x, y = x[:20], y[:20]
    whole = smallest(model, x, y, norm, FMN(steps=30, targets=2)).distance
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    for rows in order.split(7):
        part = smallest(model, x[rows], y[rows], norm, FMN(steps=30, targets=2)).distance
        torch.testing.assert_close(part, whole[rows], rtol=0.01, atol=0)


@pytest.mark.parametrize("shape", [(16,), (2, 8), (2, 2, 2, 2)])
def test_any_shape_of_input_works(shape):
    model = linear()
    x, y = images(model, shape=shape)
    found = smallest(model, x, y, "linf", FMN(steps=20, targets=2))
    assert found.images.shape == x.shape
    torch.testing.assert_close(found.distance, radius(model, x, y, "linf"), rtol=0.01, atol=0)


def test_passes_are_counted_truly_and_the_model_is_left_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.count = linear(), 0

        def forward(self, x):
            self.count += len(x)
            assert not self.training
            return self.inner(x)

    model = Counting().train()
    x, y = images(model.inner)
    found = smallest(model, x, y, "l2", FMN(steps=10, targets=1, bisections=4))
    # One image first and all of them last are the checks.
    assert model.count == found.forward_passes + 1 + len(x)
    # Two walks of 10 steps and a last look, the classes to aim at, and the bisection.
    assert found.forward_passes == len(x) * (2 * 11 + 1 + 4)
    assert found.backward_passes == len(x) * 2 * 10
    assert model.training
    assert model.inner[1].weight.requires_grad


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"targets": -1}, {"bisections": -1}, {"step_start": 0.0}, {"gamma_end": 0.0}, {"gamma_start": 1.0}],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(RepulseError, match=next(iter(setting))):
        FMN(**setting)
