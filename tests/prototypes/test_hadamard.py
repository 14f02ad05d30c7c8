"""Hadamard matrices, checked in integers."""

from __future__ import annotations

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.prototypes.hadamard import hadamard, hadamard_matrix, is_constructible


def test_every_order_up_to_200_but_the_known_gaps() -> None:
    missing = [d for d in range(4, 201, 4) if not is_constructible(d)]
    # Orders that need Williamson's or later constructions.
    assert missing == [92, 116, 156, 172, 184, 188]
    assert not any(is_constructible(d) for d in range(3, 200) if d % 4)


@pytest.mark.parametrize("d", [d for d in range(1, 129) if is_constructible(d)] + [500, 1024])
def test_rows_are_signs_and_orthogonal(d: int) -> None:
    matrix = hadamard_matrix(d).to(torch.float64)
    assert torch.equal(matrix.abs(), torch.ones_like(matrix))
    assert torch.equal(matrix @ matrix.T, d * torch.eye(d, dtype=torch.float64))


def test_any_two_points_differ_by_two_in_some_coordinate() -> None:
    points = hadamard(24, 12)
    distance = torch.cdist(points, points, p=torch.inf)
    assert torch.equal(distance, 2 - 2 * torch.eye(24))


def test_an_order_without_matrix_names_the_nearest_that_has_one() -> None:
    with pytest.raises(RepulseError) as error:
        hadamard(10, 10)
    assert str(error.value) == (
        "no hadamard prototypes with n=10, d=10: no Hadamard matrix of order 10 is known here, the nearest is d=8; "
        "method 'auto' takes any n with d >= 2"
    )
    with pytest.raises(RepulseError, match="the nearest is d=12"):
        hadamard(17, 10)
    with pytest.raises(RepulseError, match="it has at most 2 d = 8 points"):
        hadamard(9, 4)
    with pytest.raises(ValueError, match="no Hadamard matrix of order 92"):
        hadamard_matrix(92)
