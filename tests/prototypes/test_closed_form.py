"""Closed forms have the angles that the theorems promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repulse.common.errors import RepulseError
from repulse.prototypes.closed_form import max_mahalanobis, one_hot, orthoplex, polygon, random, simplex


def cosines(points: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(points.double(), dim=1)
    return unit @ unit.T


@given(st.integers(2, 40), st.integers(0, 30))
def test_simplex_has_all_cosines_equal_and_least(n: int, spare: int) -> None:
    points = simplex(n, n - 1 + spare)
    expected = torch.full((n, n), -1 / (n - 1), dtype=torch.float64).fill_diagonal_(1)
    assert points.shape == (n, n - 1 + spare)
    assert torch.allclose(cosines(points), expected, atol=1e-6)
    assert torch.allclose(points.norm(dim=1), torch.ones(n), atol=1e-6)
    assert torch.allclose(points.sum(0), torch.zeros(points.shape[1]), atol=1e-5)


@given(st.integers(2, 40), st.integers(0, 30))
def test_max_mahalanobis_is_a_simplex_of_norm_ten(n: int, spare: int) -> None:
    points = max_mahalanobis(n, n - 1 + spare)
    expected = torch.full((n, n), -1 / (n - 1), dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(cosines(points), expected, atol=1e-6)
    assert torch.allclose(points.norm(dim=1), torch.full((n,), 10.0), atol=1e-5)


def test_max_mahalanobis_follows_the_papers_loop() -> None:
    n = 7
    centres = torch.zeros(n, n, dtype=torch.float64)
    centres[0, 0] = 1
    for i in range(1, n):
        for j in range(i):
            centres[i, j] = -(1 / (n - 1) + centres[i] @ centres[j]) / centres[j, j]
        centres[i, i] = (1 - centres[i].square().sum()).clamp(min=0).sqrt()
    assert torch.allclose(max_mahalanobis(n, n).double(), 10 * centres, atol=1e-5)


@given(st.integers(1, 20), st.data())
def test_orthoplex_has_cosines_zero_and_minus_one(d: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(2, max(2, 2 * d)))
    matrix = cosines(orthoplex(n, d)).fill_diagonal_(0)
    assert set(matrix.flatten().tolist()) <= {0.0, -1.0}
    assert int((matrix == -1).sum()) == 2 * max(0, n - d)


def test_polygon_has_equal_angles() -> None:
    matrix = cosines(polygon(7, 3)).fill_diagonal_(-2)
    assert torch.rad2deg(matrix.amax(1).acos()).tolist() == pytest.approx([360 / 7] * 7, abs=1e-4)


def test_random_is_on_the_sphere_and_depends_on_the_seed_alone() -> None:
    points = random(50, 6, 3)
    assert torch.allclose(points.norm(dim=1), torch.ones(50), atol=1e-6)
    assert torch.equal(points, random(50, 6, 3))
    assert not torch.equal(points, random(50, 6, 4))
    torch.testing.assert_close(random(20_000, 3, 0).mean(0), torch.zeros(3), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("construction", "n", "d", "message"),
    [
        (simplex, 5, 3, "no simplex prototypes with n=5, d=3: it has at most d + 1 = 4 points"),
        (orthoplex, 7, 3, "no orthoplex prototypes with n=7, d=3: it has at most 2 d = 6 points"),
        (one_hot, 4, 3, "no one-hot prototypes with n=4, d=3: it has at most d = 3 points"),
        (polygon, 4, 1, "no polygon prototypes with n=4, d=1: it needs a plane, d >= 2"),
        (max_mahalanobis, 5, 3, "no max-mahalanobis prototypes with n=5, d=3: it has at most d + 1 = 4 points"),
    ],
)
def test_impossible_sizes_say_what_is_possible(construction, n: int, d: int, message: str) -> None:
    with pytest.raises(RepulseError) as error:
        construction(n, d)
    assert str(error.value) == f"{message}; method 'auto' takes any n with d >= 2"
