import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from repulse.certification.lipschitz_bound import convolution_norm, lipschitz_bound, power_iteration
from repulse.common.errors import RepulseError
from repulse.common.fixed_weights import frozen
from repulse.models import PrototypeClassifier
from repulse.models.lipschitz import HalfAbs, Halve, LipschitzCNN, Shift, SumPool


def unrolled_norm(layer, shape):
    """The spectral norm of a linear layer by the book: push every basis vector through it, and take the dense SVD."""
    layer = layer.double().eval()
    count = torch.Size(shape).numel()
    with torch.no_grad():
        basis = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
        matrix = (layer(basis) - layer(torch.zeros_like(basis))).flatten(1)
    return float(torch.linalg.svdvals(matrix)[0])


def bound(layer, shape):
    return lipschitz_bound(layer, shape).layers[0]


def conv(*args, **options):
    torch.manual_seed(3)
    return nn.Conv2d(*args, **options)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (conv(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 6)),
        (conv(3, 2, 5, padding="same", padding_mode="circular"), (3, 6, 5)),
        (conv(2, 2, 3, padding=2, dilation=2, padding_mode="circular"), (2, 5, 5)),
        (conv(4, 4, 3, padding=1, groups=2, padding_mode="circular"), (4, 4, 4)),
        (conv(2, 3, 3, padding=1, stride=2, padding_mode="circular"), (2, 6, 4)),
        (conv(2, 3, (3, 5), padding=(1, 2), padding_mode="circular"), (2, 3, 4)),
        (conv(3, 5, 1), (3, 4, 5)),
        (conv(2, 5, 2, stride=2), (2, 6, 6)),
        (nn.Linear(7, 4), (7,)),
    ],
)
def test_where_the_norm_can_be_exact_it_is_that_of_the_unrolled_operator(layer, shape):
    found = bound(layer, shape)
    exact = unrolled_norm(layer, shape)
    assert found.upper == pytest.approx(exact, rel=1e-9)
    assert found.upper >= exact
    assert 0.98 * exact <= found.lower <= exact * (1 + 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 2},
        {"padding": 0},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "stride": 2},
        {"padding": 1, "stride": 3},
        {"padding": 1, "groups": 2},
        {"padding": (0, 1), "stride": (1, 2)},
    ],
)
@pytest.mark.parametrize("size", [(5, 5), (6, 8)])
def test_with_zeros_around_the_image_the_bound_lies_above(options, size):
    layer, shape = conv(2, 4, 3, **options), (2, *size)
    exact = unrolled_norm(layer, shape)
    found = bound(layer, shape)
    # On so few pixels the rim is most of the image, where zeros hold the norm down.
    assert exact <= found.upper <= 1.5 * exact
    assert found.lower == pytest.approx(exact, rel=0.05)
    assert found.lower <= exact * (1 + 1e-9)


def test_a_padded_bound_closes_on_the_norm_as_the_image_grows():
    layer = conv(1, 2, 3, padding=1)
    gaps = [bound(layer, (1, n, n)).upper / unrolled_norm(layer, (1, n, n)) - 1 for n in (3, 6, 12)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.05


def test_a_kernel_larger_than_its_torus_wraps_around():
    """On one position the operator is the sum of the kernel."""
    kernel = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    assert convolution_norm(kernel, (1, 1)) == pytest.approx(float(torch.linalg.matrix_norm(kernel.sum((2, 3)), 2)))


def test_power_iteration_finds_the_norm_of_a_diagonal_layer():
    layer = nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([0.5, -3.0, 1.0])))
    assert power_iteration(layer, (3,)) == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.AvgPool2d(2), (3, 4, 6)),
        (nn.AvgPool2d(3, stride=2, padding=1), (1, 7, 7)),
        (Shift(), (9, 3, 3)),
        (Halve(), (2, 3, 3)),
        (SumPool(), (2, 3, 4)),
        (nn.PixelUnshuffle(2), (1, 4, 4)),
    ],
)
def test_linear_parts_have_their_norms(layer, shape):
    exact = unrolled_norm(layer, shape)
    assert exact <= bound(layer, shape).upper <= 1.2 * exact


def test_pooling_by_the_largest_stretches_by_the_windows_that_share_a_pixel():
    for layer, expected in ((nn.MaxPool2d(2), 1.0), (nn.MaxPool2d(3, stride=2), 2.0), (nn.MaxPool2d(3, stride=1), 3.0)):
        assert bound(layer, (1, 9, 9)).upper == expected
        # One bright pixel at (4, 4) shows what is reached.
        x = torch.zeros(1, 1, 9, 9)
        x[0, 0, 4, 4] = 1.0
        assert 0.5 * expected <= float(layer(x).norm()) <= expected


def test_slopes_above_one_count():
    assert bound(nn.LeakyReLU(2.5), (3,)).upper == 2.5
    assert bound(nn.ReLU(), (3,)).upper == 1.0


def classifier(std=(1.0,), mirror=False, shift=0):
    torch.manual_seed(0)
    backbone = LipschitzCNN(1, 10, width=8, depth=1)
    return PrototypeClassifier(backbone, torch.eye(10), "l2", mean=(0.3,), std=std, mirror=mirror, shift=shift).eval()


def test_a_network_of_orthogonal_layers_is_1_lipschitz():
    found = lipschitz_bound(classifier(), (1, 8, 8))
    found.verify()
    assert 1 <= found.constant <= 1 + 2e-6
    assert [layer.name for layer in found.layers][:3] == ["std", "backbone.0", "backbone.1"]
    assert all(layer.lower <= layer.upper for layer in found.layers)


def test_the_constant_is_the_product_and_the_deviations_divide_it():
    found = lipschitz_bound(classifier(std=(0.25,), mirror=True, shift=1), (1, 8, 8))
    assert found.constant == pytest.approx(4, rel=1e-5)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    found = lipschitz_bound(layers, (1, 2, 2))
    norms = [float(torch.linalg.matrix_norm(layers[i].weight.detach().double(), 2)) for i in (1, 3)]
    assert found.constant == pytest.approx(norms[0] * norms[1], rel=1e-9)


def test_the_slope_of_a_chain_never_exceeds_its_bound():
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), HalfAbs(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip
    constant = lipschitz_bound(chain, (1, 8, 8)).constant
    slopes = []
    for _ in range(20):
        x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda image: chain(image)[0], x).flatten(1)
        slopes.append(float(torch.linalg.matrix_norm(jacobian, 2)))
    assert 0 < max(slopes) <= constant


def test_a_layer_scaled_after_training_is_caught():
    model = frozen(classifier())
    with torch.no_grad():
        model.backbone[4].weight.mul_(1.05)
    found = lipschitz_bound(model, (1, 8, 8))
    assert found.constant == pytest.approx(1.05, rel=1e-5)
    message = (
        r"^layer backbone.4 \(Conv2d\) has spectral norm 1.050000 \(power iteration finds 1.0\d+\), expected at most "
        "1: its weights are not those that training made$"
    )
    with pytest.raises(RepulseError, match=message):
        found.verify()


def test_a_wrong_rescaling_is_caught(monkeypatch):
    """Were the orthogonal layers made wrong, the verification would not believe them."""
    model = classifier()
    monkeypatch.setattr("repulse.models.lipschitz.orthonormal", lambda weight: weight / weight.norm(dim=1).amax() * 1.1)
    with pytest.raises(RepulseError, match=r"^layer backbone\.\d+ \((Conv2d|Linear)\) has spectral norm "):
        lipschitz_bound(model, (1, 8, 8)).verify()


class Doubling(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("backbone", "part"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()), r"backbone.1 \(BatchNorm2d\)"),
        (nn.Sequential(nn.Sequential(nn.Flatten()), Doubling(nn.Identity())), r"backbone.1 \(Doubling\)"),
    ],
)
def test_parts_without_a_known_bound_are_refused_by_name(backbone, part):
    message = f"^part {part} has no known Lipschitz bound, so nothing can be certified in L2; use a chain of layers .*$"
    with pytest.raises(RepulseError, match=message):
        lipschitz_bound(PrototypeClassifier(backbone, torch.eye(2), "l2"), (1, 8, 8))


@pytest.mark.parametrize("parametrised", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_a_parametrised_layer_has_the_norm_of_the_weight_it_uses(parametrised):
    torch.manual_seed(0)
    layer = parametrised(nn.Linear(64, 2)).eval()
    found = lipschitz_bound(PrototypeClassifier(nn.Sequential(nn.Flatten(), layer), torch.eye(2), "l2"), (1, 8, 8))
    assert found.constant == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)), rel=1e-6)


def test_a_hook_is_not_overlooked():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    backbone[1].register_forward_hook(lambda layer, x, y: 10 * y)
    with pytest.raises(RepulseError, match=r"^part 1 \(Linear\) has no known Lipschitz bound"):
        lipschitz_bound(backbone, (1, 8, 8))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            conv(1, 1, 3, padding=1, padding_mode="reflect"),
            "padding mode 'reflect' has no known bound; use ",
        ),
        (
            conv(1, 1, 3, padding=2, padding_mode="circular"),
            "circular padding that turns 8x8 pixels into 10x10 ",
        ),
        (nn.MaxPool2d(2, dilation=2), "dilated pooling has no known bound"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "average pooling that counts windows at the rim in "),
    ],
)
def test_layers_without_a_known_bound_say_why(layer, message):
    with pytest.raises(RepulseError, match=rf"^part model \(\w+\): {message}"):
        lipschitz_bound(layer, (1, 8, 8))


def test_weights_that_are_not_numbers_are_refused():
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, torch.nan)
    with pytest.raises(RepulseError, match=r"^part model \(Linear\) has weights that are not finite numbers$"):
        lipschitz_bound(layer, (3,))
