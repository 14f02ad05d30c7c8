"""The mutually unbiased bases, checked in integers."""

from __future__ import annotations

import math
import time

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.prototypes.kerdock import kerdock, kerdock_dimension, kerdock_signs


@pytest.mark.parametrize("d", [4, 16, 64])
def test_the_whole_set_is_unbiased(d: int) -> None:
    n = d * d + 2 * d
    root = math.isqrt(d)
    points = kerdock(n, d)
    scaled = (points * root).round()
    assert torch.equal(scaled / root, points)
    gram = (scaled @ scaled.T).to(torch.int64)
    # In units of 1/d: 1 is d. Bases come one after the other, then all negatives.
    basis = (torch.arange(n) % (n // 2)) // d
    same = basis[:, None] == basis
    assert torch.equal(gram[~same].abs().unique(), torch.tensor([root]))
    signs = torch.eye(n // 2, dtype=torch.int64).repeat(2, 2)
    signs[: n // 2, n // 2 :] *= -1
    signs[n // 2 :, : n // 2] *= -1
    assert torch.equal(gram[same], (d * signs)[same])


@pytest.mark.parametrize("m", [2, 4, 6, 8])
def test_differences_of_forms_have_full_rank(m: int) -> None:
    # A quadratic form of full rank has a flat Walsh spectrum: a bent function.
    signs = kerdock_signs(m).long()
    index = torch.arange(2**m)
    parity = index[:, None] & index
    walsh = torch.ones_like(parity)
    for bit in range(m):
        walsh *= 1 - 2 * (parity >> bit & 1)
    for other in range(1, len(signs), max(1, len(signs) // 16)):
        spectrum = walsh @ (signs[0] * signs[other])
        assert torch.equal(spectrum.abs(), torch.full_like(spectrum, 2 ** (m // 2)))


@pytest.mark.parametrize(("n", "opposite"), [(33, False), (100, False), (144, False), (145, True), (287, True)])
def test_two_bases_already_have_the_final_angle(n: int, opposite: bool) -> None:
    points = kerdock(n, 16)
    gram = (points @ points.T).fill_diagonal_(0)
    assert float(gram.max()) == 0.25
    # As long as there are enough lines, no two points are opposite.
    assert float(gram.min()) == (-1 if opposite else -0.25)


def test_one_basis_is_an_orthoplex() -> None:
    points = kerdock(32, 16)
    assert float((points @ points.T).fill_diagonal_(-1).max()) == 0


def test_imagenet_21k_in_256_dimensions() -> None:
    start = time.perf_counter()
    points = kerdock(21_841, 256)
    assert time.perf_counter() - start < 10
    sample = points[torch.arange(0, 21_841, 13)]
    gram = (sample @ sample.T).fill_diagonal_(0)
    assert float(gram.abs().max()) == 1 / 16
    assert kerdock_dimension(256) == 256


def test_impossible_sizes() -> None:
    with pytest.raises(RepulseError) as error:
        kerdock(100, 32)
    assert str(error.value) == (
        "no kerdock prototypes with n=100, d=32: d must be a power of 4, such as 16 or 64; "
        "method 'auto' takes any n with d >= 2"
    )
    with pytest.raises(RepulseError, match=r"at most d\^2 \+ 2 d = 288 points"):
        kerdock(289, 16)
    with pytest.raises(RepulseError, match="d must be a power of 4; method 'auto'"):
        kerdock(4, 2)


@pytest.mark.parametrize(("d", "held"), [(1, 0), (3, 0), (4, 4), (15, 4), (16, 16), (255, 64), (1024, 1024)])
def test_the_largest_dimension_that_fits(d: int, held: int) -> None:
    assert kerdock_dimension(d) == held
