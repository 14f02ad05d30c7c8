import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from repulse.certification.linf_bound import linf_bound
from repulse.common.errors import RepulseError
from repulse.models import PrototypeClassifier, make_backbone
from repulse.models.linf_distance import LinfDistance, LinfDistanceNet, MeanShift, p_at

SHAPE = (1, 9, 9)


def net(seed=0, channels=1, dimension=5, width=12, depth=3, grid=4):
    """A random network with random running means, in evaluation mode."""
    torch.manual_seed(seed)
    made = LinfDistanceNet(channels, dimension, width, depth=depth, grid=grid)
    made(torch.rand(20, channels, *SHAPE[1:]))
    return made.eval()


def classifier(backbone, **options):
    return PrototypeClassifier(backbone, torch.eye(5), "linf", **options).eval()


def test_a_layer_measures_distances_to_its_points():
    layer = LinfDistance(3, 2).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    x = torch.tensor([[1.0, -4.0, 2.0]])
    assert layer(x).tolist() == [[4.0, 6.0]]
    layer.train().p = 2.0
    torch.testing.assert_close(layer(x), torch.tensor([[math.sqrt(21), math.sqrt(37)]]))


def test_a_square_layer_starts_by_passing_its_inputs_on():
    torch.manual_seed(0)
    layer = LinfDistance(6, 8, scale=0.5).eval()
    x = torch.rand(4, 6)
    torch.testing.assert_close(layer(x) - 5, torch.cat((x, x[:, :2]), 1), rtol=0, atol=1e-6)


def test_mean_shift_subtracts_the_batch_mean_and_keeps_a_running_one():
    shift = MeanShift(2, momentum=0.25, bias=True)
    with torch.no_grad():
        shift.bias.fill_(7.0)
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert shift(x).tolist() == [[6.0, 5.0], [8.0, 9.0]]
    assert shift.mean.tolist() == [0.5, 1.0]
    assert shift.eval()(x).tolist() == [[7.5, 8.0], [9.5, 12.0]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), depth=st.integers(1, 4), size=st.floats(1e-4, 2.0), grid=st.integers(1, 11))
def test_random_networks_do_not_stretch_linf_distances(seed, depth, size, grid):
    made = net(seed, depth=depth, grid=grid)
    x = torch.rand(16, *SHAPE)
    y = x + size * torch.randn(16, 1, 1, 1) * torch.where(torch.rand(x.shape) < 0.5, -1.0, 1.0)
    with torch.inference_mode():
        moved = (made(x) - made(y)).abs().amax(1)
    assert (moved <= (x - y).abs().flatten(1).amax(1) + 1e-5).all()


def test_the_bound_is_reached():
    """A network that starts by passing pixels on moves as far as its image does."""
    backbone = LinfDistanceNet(1, 81, 81, depth=3, grid=9).eval()
    x = 0.5 * torch.rand(4, *SHAPE)
    with torch.inference_mode():
        moved = (backbone(x) - backbone(x + 0.25)).abs().amax(1)
    torch.testing.assert_close(moved, torch.full((4,), 0.25), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("share", "p"),
    [
        (0.0, 8.0),
        (0.08, 8.0),
        (0.5, math.sqrt(8.0 * 1000.0)),
        (0.08 + 0.84 / 3, 40.0),
        (0.92, math.inf),
        (1.0, math.inf),
    ],
)
def test_p_rises_exponentially_and_ends_at_infinity(share, p):
    assert p_at(share) == pytest.approx(p)
    backbone = net()
    backbone.on_progress(share)
    assert {layer.p for layer in backbone.layers if isinstance(layer, LinfDistance)} == {backbone.p} == {p_at(share)}


def test_evaluation_is_at_infinite_p_whatever_training_stands_at():
    backbone, x = net(), torch.rand(3, *SHAPE)
    before = backbone(x)
    backbone.on_progress(0.3)
    assert torch.equal(backbone(x), before)
    assert not torch.allclose(backbone.train()(x), before)


def test_the_registered_backbone_takes_images_of_any_size():
    for channels, size in ((1, 8), (3, 32), (1, 29)):
        backbone = make_backbone("linf-dist", channels=channels, dimension=7, width=0.125).eval()
        assert backbone(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_a_sound_network_has_constant_one_in_pixels():
    bound = linf_bound(net(), SHAPE)
    assert bound.constant == 1
    assert [layer.kind for layer in bound.layers] == [
        "AdaptiveAvgPool2d",
        "Flatten",
        *("LinfDistance", "MeanShift") * 3,
    ]
    assert all(0.9 < layer.lower <= layer.upper + 1e-9 for layer in bound.layers)


def test_normalisation_counts_by_its_smallest_deviation():
    made = classifier(net(channels=3), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.5), mirror=True, shift=1)
    assert linf_bound(made, (3, 9, 9)).constant == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize(("mirror", "shift"), [(False, 0), (True, 0), (True, 2)])
def test_rounding_is_within_its_bound_and_the_bound_is_tight_enough_to_use(mirror, shift):
    made = classifier(net(width=40, grid=9), mean=(0.3,), std=(0.25,), mirror=mirror, shift=shift)
    x = torch.rand(200, *SHAPE)
    with torch.inference_mode():
        single = made.embed(x)
        exact = made.double().embed(x.double())
    bound = linf_bound(made.float(), SHAPE)
    error = (single.double() - exact).abs().max().item()
    assert 0 < error <= bound.rounding < 1e-4


class Scaled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 1.05 * self.inner(x)


class ScaledDistance(LinfDistance):
    def forward(self, x):
        return 1.05 * super().forward(x)


def with_layer(index, change):
    backbone = net()
    backbone.layers[index] = change(backbone.layers[index])
    return backbone.eval()


def hooked(layer):
    layer.register_forward_hook(lambda module, inputs, output: 1.05 * output)
    return layer


def patched(layer):
    layer.forward = lambda x: 1.05 * LinfDistance.forward(layer, x)
    return layer


def subclassed(layer):
    layer.__class__ = ScaledDistance
    return layer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            Scaled,
            r"^backbone\.layers\.4 is a Scaled, which is not known to be 1-Lipschitz in L-inf; known: LinfDistance, ",
        ),
        (subclassed, r"^backbone\.layers\.4 is a ScaledDistance, which is not known to be 1-Lipschitz"),
        (hooked, r"^backbone\.layers\.4 \(LinfDistance\) has a hook or a forward of its own: nothing is known of it$"),
        (patched, r"^backbone\.layers\.4 \(LinfDistance\) has a hook or a forward of its own: nothing is known of it$"),
        (lambda layer: torch.nn.Linear(12, 12), r"^backbone\.layers\.4 is a Linear, which is not known"),
        (lambda layer: torch.nn.BatchNorm1d(12), r"^backbone\.layers\.4 is a BatchNorm1d, which is not known"),
    ],
)
def test_a_changed_layer_is_refused_by_name(change, message):
    with pytest.raises(RepulseError, match=message):
        linf_bound(classifier(with_layer(4, change)), SHAPE)


@pytest.mark.parametrize("index", [0, 2, 3])
def test_a_layer_that_stretches_by_a_twentieth_is_measured(monkeypatch, index):
    """Even where its kind looks right: here the class itself has been changed."""
    backbone = net()
    kind = type(backbone.layers[index])
    true = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 1.05 * true(self, x))
    with pytest.raises(
        RepulseError, match=rf"^backbone\.layers\.{index} \({kind.__name__}\) stretches L-inf distances by 1\.05,"
    ):
        linf_bound(classifier(backbone), SHAPE)


def test_training_mode_is_refused_with_its_p():
    backbone = net()
    backbone.layers[4].train()
    backbone.on_progress(0.5)
    with pytest.raises(
        RepulseError,
        match=r"^backbone\.layers\.4 \(LinfDistance\) is in training mode with p = 89\.4427, so it is not 1-Lipschitz: "
        r"call eval\(\)$",
    ):
        linf_bound(_keep_mode(backbone), SHAPE)


def _keep_mode(backbone):
    made = PrototypeClassifier(backbone, torch.eye(5), "linf")
    made.training = False
    return made


def test_another_network_is_refused_by_name():
    made = classifier(make_backbone("small-cnn", channels=1, dimension=5))
    with pytest.raises(RepulseError, match=r"^backbone is a SmallCNN, which is not known to be 1-Lipschitz in L-inf"):
        linf_bound(made, (1, 16, 16))
