import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parametrize

from repulse.common.errors import RepulseError
from repulse.common.fixed_weights import frozen
from repulse.models import make_backbone
from repulse.models.lipschitz import (
    HalfAbs,
    Halve,
    LipschitzCNN,
    Shift,
    SumPool,
    orthonormal,
)


def moved(module, seed=0, by=0.2):
    """The module, its parameters taken from where they started, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return module


def network(size=8, channels=1, seed=0):
    torch.manual_seed(seed)
    return moved(LipschitzCNN(channels, 10, width=8, depth=1), seed).eval()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_shorter_side_is_orthonormal(o, i, seed):
    made = orthonormal(torch.randn(o, i, generator=torch.Generator().manual_seed(seed))).double()
    gram = made @ made.T if o <= i else made.T @ made
    # The weights are rounded to single precision.
    torch.testing.assert_close(gram, torch.eye(min(o, i)).double(), atol=1e-6, rtol=0)


def test_orthonormal_rows_are_those_of_gram_and_schmidt():
    rows = torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 2.0]])
    first = torch.tensor([0.6, 0.8, 0.0])
    second = rows[1] - 0.6 * first
    torch.testing.assert_close(orthonormal(rows), torch.stack((first, second / second.norm())))


@pytest.mark.parametrize("weight", [torch.ones(2, 3), torch.full((2, 3), torch.nan)])
def test_weights_without_orthonormal_rows_are_refused(weight):
    with pytest.raises(RepulseError, match=r"^the weights of an orthogonal layer have become linearly dependent or "):
        orthonormal(weight)


def test_a_shift_moves_an_eighth_of_the_channels_each_way():
    x = torch.rand(2, 9, 3, 4)
    expected = torch.zeros_like(x)
    expected[:, 0, 1:] = x[:, 0, :-1]
    expected[:, 1, :-1] = x[:, 1, 1:]
    expected[:, 2, :, 1:] = x[:, 2, :, :-1]
    expected[:, 3, :, :-1] = x[:, 3, :, 1:]
    expected[:, 4:] = x[:, 4:]
    assert torch.equal(Shift()(x), expected)


@pytest.mark.parametrize("part", [HalfAbs, Shift])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fast_ways_of_training_compute_the_same(part, layout):
    torch.manual_seed(0)
    found = []
    x, weight = torch.randn(3, 17, 5, 4), torch.randn(3, 17, 5, 4)
    for mode in (True, False):
        images = x.to(memory_format=layout, copy=True).requires_grad_()
        y = part().train(mode)(images)
        (y * weight).sum().backward()
        found.append((y.detach(), images.grad))
    for fast, plain in zip(*found, strict=True):
        assert torch.equal(fast, plain)
    small = torch.randn(1, 8, 2, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(part().train(), small)
    assert torch.autograd.gradgradcheck(part().train(), small)


def test_half_abs_between_rotations_is_maxmin():
    x = torch.randn(5, 6)
    root = 0.5**0.5
    rotation = root * torch.kron(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.eye(3))
    folded = HalfAbs()(x @ rotation.T)
    back = torch.cat((folded[:, 3:] + folded[:, :3], folded[:, 3:] - folded[:, :3]), 1) * root
    torch.testing.assert_close(back, torch.cat((x[:, :3].maximum(x[:, 3:]), x[:, :3].minimum(x[:, 3:])), 1))


@pytest.mark.parametrize("side", [7, 8])
def test_halving_keeps_every_pixel(side):
    x = torch.randn(2, 3, side, side)
    y = Halve()(x)
    assert y.shape == (2, 12, 4, 4)
    assert sorted(y[y != 0].tolist()) == sorted(x.flatten().tolist())


def test_pooling_keeps_the_norm_of_what_is_the_same_everywhere():
    x = torch.randn(2, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(SumPool()(x).norm(dim=1), x.flatten(1).norm(dim=1))


@pytest.mark.parametrize("part", [HalfAbs(), Shift(), Halve(), SumPool()])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999))
def test_no_part_takes_two_images_further_apart(part, seed):
    a, b = torch.randn(2, 4, 8, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before, after = (a - b).flatten(1).norm(dim=1), (part(a) - part(b)).flatten(1).norm(dim=1)
    assert (after <= before * (1 + 1e-12)).all()


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-3, 0.1, 3.0]), side=st.sampled_from([7, 8, 33]))
def test_no_network_takes_two_images_further_apart(seed, scale, side):
    generator = torch.Generator().manual_seed(seed)
    net = frozen(network(seed=seed)).double()
    a = torch.rand(8, 1, side, side, generator=generator, dtype=torch.float64)
    b = a + scale * torch.randn(a.shape, generator=generator, dtype=torch.float64)
    before, after = (a - b).flatten(1).norm(dim=1), (net(a) - net(b)).norm(dim=1)
    assert (after <= before * (1 + 1e-6)).all()
    # It is no dead network either: what a bound allows is used to a good part.
    assert (after > 0.01 * before).all()


def test_embeddings_depend_on_every_pixel():
    x = torch.rand(3, 3, 28, 28, requires_grad=True)
    make_backbone("lipschitz-cnn", channels=3, dimension=10, width=0.5)(x).square().sum().backward()
    assert (x.grad.abs().sum((0, 1)) > 0).all()


def test_a_frozen_network_is_the_same_network():
    net = network()
    plain = frozen(net)
    x = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(plain(x), net(x), atol=1e-6, rtol=0)
    assert not any(map(parametrize.is_parametrized, plain.modules()))
    assert not plain.training
    # The original is still one that trains.
    assert any(map(parametrize.is_parametrized, net.modules()))


def test_a_network_taken_up_from_its_state_or_copied_is_the_same_bit_for_bit():
    net = network()
    x = torch.rand(6, 1, 8, 8)
    other = LipschitzCNN(1, 10, width=8, depth=1).eval()
    other.load_state_dict(net.state_dict())
    first = net(x)
    assert torch.equal(other(x), first)
    assert torch.equal(copy.deepcopy(net)(x), first)
    assert torch.equal(net(x), first)


@pytest.mark.parametrize("width", [6, 9])
def test_impossible_widths_are_refused(width):
    message = f"^lipschitz-cnn needs an even number of at least 8 channels, got {width}: raise width$"
    with pytest.raises(RepulseError, match=message):
        LipschitzCNN(1, 10, width=width)


def test_a_checkpoint_of_before_the_parametrisation_loads_and_computes_the_same():
    """An orthogonal layer kept its matrix as `weight`."""
    net = network()
    older = {name.replace("parametrizations.weight.original", "weight"): v for name, v in net.state_dict().items()}
    older = {name: v.flatten(1) if name.endswith("weight") else v for name, v in older.items()}
    assert not any("parametrizations" in name for name in older)
    other = LipschitzCNN(1, 10, width=8, depth=1).eval()
    other.load_state_dict(older)
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(other(x), net(x))
    fixed = frozen(net)
    fixed.load_state_dict(fixed.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        LipschitzCNN(1, 10, width=10, depth=1).load_state_dict(older)
