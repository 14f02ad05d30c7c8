import pytest
import torch
from torch import nn

from repulse.attacks import Threat
from repulse.common.errors import RepulseError
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.slices import loss_slices
from repulse.subject import Subject

EPS = 0.1


def sliced(runner, images, rows, *rest, **how):
    return loss_slices(runner, images[rows], rows, *rest, **how)


def linear(shape, classes=3, seed=0):
    """A linear model, whose margin is linear on any plane."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes))


def bench_of(model, shape, count=4, *, batch_size=64, seed=0, low=0.4, high=0.6):
    images = low + (high - low) * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)
    return AttackRunner(Subject(model, images, labels, batch_size=batch_size, seed=seed))


def margins(model, points, label):
    with torch.no_grad():
        logits = model(points)
    others = [logits[:, k] for k in range(logits.shape[1]) if k != label]
    return torch.stack(others).amax(0) - logits[:, label]


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 2), (16,), (2, 5)])
def test_each_axis_holds_the_margin_along_its_direction(shape):
    model = linear(shape)
    runner = bench_of(model, shape)
    sign = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2)).sign()
    # Half of the ball: directions have length 1 however far the attack went.
    found = sliced(runner, runner.images + 0.5 * EPS * sign, torch.tensor([2, 0]), Threat("linf", EPS), size=9)
    axis = found["slice/eps"]
    assert torch.allclose(axis, torch.linspace(-0.2, 0.2, 9))
    assert found["slice/index"].tolist() == [2, 0]
    assert found["slice/margin"].shape == (2, 9, 9)
    for k, row in enumerate((2, 0)):
        label = int(runner.labels[row])
        points = runner.images[row] + axis.reshape(-1, *[1] * len(shape)) * sign[row]
        assert torch.allclose(found["slice/margin"][k, 4], margins(model, points, label), atol=1e-5)
        # Across, by a random sign pattern: no step of that length changes a margin by more than the best one does.
        (weight,) = [layer.weight.detach() for layer in model if isinstance(layer, nn.Linear)]
        steepest = max(float((weight[j] - weight[label]).abs().sum()) for j in range(3) if j != label)
        change = (found["slice/margin"][k, :, 4] - found["slice/margin"][k, 4, 4]).abs()
        assert 0 < change.max() <= 0.2 * steepest + 1e-5


def test_the_centre_is_the_clean_image():
    model = linear((1, 3, 3))
    runner = bench_of(model, (1, 3, 3))
    found = sliced(runner, runner.images.clone(), torch.arange(4), Threat("l2", 0.3), size=7)
    expected = [float(margins(model, runner.images[i : i + 1], int(runner.labels[i]))) for i in range(4)]
    assert found["slice/margin"][:, 3, 3].tolist() == pytest.approx(expected, abs=1e-6)
    assert found["slice/eps"][3] == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_that_nothing_fooled_is_walked_along_its_gradient(norm):
    torch.manual_seed(0)
    # Two classes: the margin of class y is linear, and rises most by its dual norm times eps.
    model = linear((5,), classes=2)
    runner = bench_of(model, (5,))
    found = sliced(runner, runner.images.clone(), torch.arange(4), Threat(norm, EPS), size=5)
    weight = (model[1].weight[0] - model[1].weight[1]).detach()
    slope = weight.abs().sum() if norm == "linf" else weight.norm()
    rise = found["slice/margin"][:, 2, 3] - found["slice/margin"][:, 2, 2]
    assert rise.tolist() == pytest.approx([EPS * float(slope)] * 4, rel=1e-4)


def test_in_l2_the_second_direction_stands_at_right_angles_to_the_first():
    # The margin of two classes depends on one direction; walked along it, a step across changes nothing.
    model = linear((6,), classes=2)
    runner = bench_of(model, (6,))
    margin = sliced(runner, runner.images.clone(), torch.arange(4), Threat("l2", EPS), size=5)["slice/margin"]
    assert torch.allclose(margin, margin[:, 2:3].expand_as(margin), atol=1e-5)


def test_images_stay_within_the_range_of_pixels():
    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = [0.5]

        def forward(self, x):
            self.seen += x.detach().flatten().tolist()
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    model = Watch()
    images = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
    runner = AttackRunner(Subject(model, images, torch.zeros(2, dtype=torch.int64)))
    found = sliced(runner, images.clone(), torch.tensor([1]), Threat("linf", 0.5), size=5)
    assert min(model.seen) >= 0
    assert max(model.seen) <= 1
    # Up from white there is no way: the margin -2 sum(x) stays -6 along the uphill half of a step down, and rises.
    assert found["slice/margin"][0, 2].tolist() == pytest.approx([-6, -6, -6, -3, 0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_has_the_same_slice_in_any_batch_and_order(norm):
    model = linear((1, 4, 4))
    one, other = bench_of(model, (1, 4, 4), batch_size=100), bench_of(model, (1, 4, 4), batch_size=7)
    adversarial = (one.images + EPS * one.images.cos().sign()).clamp(0, 1)
    threat = Threat(norm, EPS)
    a = sliced(one, adversarial, torch.tensor([0, 1, 2]), threat, size=5)["slice/margin"]
    b = sliced(other, adversarial, torch.tensor([2, 0]), threat, size=5)["slice/margin"]
    assert torch.allclose(a[[2, 0]], b, atol=1e-5)
    again = bench_of(model, (1, 4, 4), seed=1)
    across = sliced(again, adversarial, torch.tensor([0]), threat, size=5)["slice/margin"]
    assert not torch.allclose(across[0], a[0], atol=1e-4)


class Flat(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        logits = torch.tensor([1.0, 0.0]).expand(len(x), 2)
        return logits + (0 * x.sum(1, keepdim=True) if self.kind == "zero" else 0)


@pytest.mark.parametrize("kind", ["zero", "detached"])
def test_a_model_without_a_gradient_still_has_a_slice(kind):
    images = torch.full((1, 4), 0.5)
    runner = AttackRunner(Subject(Flat(kind), images, torch.zeros(1, dtype=torch.int64)))
    for norm in ("linf", "l2"):
        found = sliced(runner, images.clone(), torch.tensor([0]), Threat(norm, EPS), size=3)
        assert found["slice/margin"].tolist() == [[[-1.0] * 3] * 3]


def test_the_model_and_the_random_state_are_left_as_they_were():
    model = linear((4,)).train()
    runner = bench_of(model, (4,))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    sliced(runner, runner.images.clone(), torch.tensor([0]), Threat("linf", EPS), size=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_nothing_to_slice_is_nothing():
    runner = bench_of(linear((4,)), (4,))
    assert sliced(runner, runner.images, torch.zeros(0, dtype=torch.int64), Threat("linf", EPS)) == {}
    assert sliced(runner, runner.images, torch.tensor([0]), Threat("linf", 0.0)) == {}


def test_impossible_grids_are_refused():
    runner = bench_of(linear((4,)), (4,))
    with pytest.raises(RepulseError) as error:
        sliced(runner, runner.images, torch.tensor([0]), Threat("linf", EPS), size=4)
    assert str(error.value) == "a slice needs an odd number of points, at least 3, got 4"
    with pytest.raises(RepulseError) as error:
        sliced(runner, runner.images, torch.tensor([0]), Threat("linf", EPS), reach=0.0)
    assert str(error.value) == "the reach of a slice must be positive, got 0.0"
