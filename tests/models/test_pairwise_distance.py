import math

import pytest
import torch
from torch.autograd import gradcheck

from repulse.models.pairwise_distance import pairwise_distance

P = [2.0, 8.0, 8.3, 1000.0, math.inf]
# Odd sizes, single rows, more than one group of coordinates, and blocks that divide nothing evenly.
SIZES = [(1, 1, 1), (5, 7, 11), (3, 2, 33), (9, 13, 65)]


def brute_force(x, w, p):
    """In float64, scaled by the largest difference; differentiable by autograd."""
    difference = (x.double().unsqueeze(1) - w.double()).abs()
    largest = difference.amax(2)
    if math.isinf(p):
        return largest
    return largest * ((difference / largest.unsqueeze(2)) ** p).sum(2) ** (1 / p)


def points(n, m, d, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(n, d, generator=generator, dtype=dtype), torch.randn(m, d, generator=generator, dtype=dtype)
    return x.requires_grad_(), w.requires_grad_()


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block_numbers", [None, 70])
def test_distances_and_gradients_equal_brute_force(p, size, block_numbers):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x, w = points(*size, dtype)
        pull = torch.randn(size[0], size[1], dtype=dtype, generator=torch.Generator().manual_seed(1))
        ours, theirs = pairwise_distance(x, w, p, block_numbers=block_numbers), brute_force(x, w, p)
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
        # A power of p multiplies the rounding of its base by p.
        allowed = tolerance * (1 if math.isinf(p) else max(1, p / 20))
        for a, b in zip(
            torch.autograd.grad(ours, (x, w), pull), torch.autograd.grad(theirs, (x, w), pull.double()), strict=True
        ):
            torch.testing.assert_close(a.double(), b.double(), rtol=allowed, atol=allowed)


@pytest.mark.parametrize("p", P)
def test_gradcheck(p):
    x, w = points(4, 5, 40, torch.float64)
    assert gradcheck(lambda x, w: pairwise_distance(x, w, p, block_numbers=120), (x, w))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("p", P)
def test_no_size_of_differences_overflows_or_vanishes(p, scale):
    x, w = points(3, 4, 50, torch.float32)
    small = pairwise_distance(x.detach(), w.detach(), p)
    big = pairwise_distance(scale * x.detach(), scale * w.detach(), p)
    torch.testing.assert_close(big / scale, small, rtol=1e-4, atol=0)


@pytest.mark.parametrize("p", P)
def test_a_point_on_another_has_distance_and_gradient_zero(p):
    x = torch.ones(1, 9, requires_grad=True)
    distance = pairwise_distance(x, torch.ones(1, 9), p)
    distance.sum().backward()
    assert distance.item() == 0
    assert torch.equal(x.grad, torch.zeros(1, 9))


def test_distances_without_a_gradient_are_the_same():
    x, w = points(7, 9, 70, torch.float32)
    for p in P:
        with torch.no_grad():
            alone = pairwise_distance(x, w, p)
        assert torch.equal(alone, pairwise_distance(x, w, p).detach())


def test_equal_differences_share_one_gradient():
    """At p = inf one of the largest coordinates takes all of it, so the sum over coordinates is 1."""
    x = torch.zeros(1, 64, requires_grad=True)
    pairwise_distance(x, torch.ones(1, 64)).sum().backward()
    assert x.grad.abs().sum().item() == 1


def test_half_precision_is_computed_in_float32():
    x, w = points(3, 4, 20, torch.bfloat16)
    assert pairwise_distance(x, w, 8.0).dtype == torch.float32
    torch.testing.assert_close(pairwise_distance(x, w, 8.0), pairwise_distance(x.float(), w.float(), 8.0))


@pytest.mark.parametrize("p", [1.5, 0.0, -1.0, math.nan])
def test_impossible_p_is_refused(p):
    with pytest.raises(ValueError, match=r"^p must be at least 2, got"):
        pairwise_distance(torch.zeros(1, 2), torch.zeros(1, 2), p)


@pytest.mark.parametrize("p", [8.0, math.inf])
def test_memory_is_bounded_by_blocks(p):
    """No tensor that the kernel makes is larger than a block, its padded arguments or its results."""
    n, m, d, block = 64, 50, 96, 4000
    x, w = points(n, m, d, torch.float32)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for each in result if isinstance(result, tuple | list) else (result,):
                if isinstance(each, torch.Tensor):
                    largest = max(largest, each.untyped_storage().nbytes() // each.element_size())
            return result

    with Watch():
        pairwise_distance(x, w, p, block_numbers=block).sum().backward()
    assert largest <= max(block, n * d, m * d, n * m) < n * m * d / 20
