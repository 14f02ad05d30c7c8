"""Measures against a loop over pairs, and against the bounds that nothing may beat."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repulse.common.errors import RepulseError
from repulse.prototypes import make_prototypes, measure, separation
from repulse.prototypes.separation import smallest_angle


def by_hand(points: torch.Tensor) -> list[float]:
    """All measures by loops, in the order of `rows`."""
    points = points.double()
    unit = [p / p.norm() for p in points]
    ball, box = points / points.norm(dim=1).max(), points / points.abs().max()
    pairs = [(i, j) for i in range(len(points)) for j in range(i)]
    cosines = [float(unit[i] @ unit[j]) for i, j in pairs]
    l2 = [float((ball[i] - ball[j]).norm()) for i, j in pairs]
    linf = [float((box[i] - box[j]).abs().max()) for i, j in pairs]
    return [
        math.degrees(math.acos(max(-1.0, min(1.0, max(cosines))))),
        max(abs(c) for c in cosines),
        len(points) + 2 * sum(c * c for c in cosines),
        min(l2),
        sum(l2) / len(pairs),
        min(linf),
        sum(linf) / len(pairs),
    ]


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 20), st.integers(1, 9), st.integers(0, 10**6))
def test_against_loops_and_bounds(n: int, d: int, seed: int) -> None:
    points = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 3
    rows = measure(points).rows()
    # Near 0 and 180 degrees the arc cosine turns rounding of 1e-16 into 1e-6 degrees.
    assert [row[1] for row in rows] == pytest.approx(by_hand(points), rel=1e-5, abs=1e-5)
    for name, value, bound, ratio, source in rows:
        assert source, name
        assert bound is not None
        assert ratio is None or 0 <= ratio <= 1 + 1e-6, (name, value, bound)
    assert smallest_angle(points) == pytest.approx(rows[0][1], abs=1e-4)


@pytest.mark.parametrize("numbers", [1, 40, 200])
def test_blocks_change_nothing(monkeypatch, numbers: int) -> None:
    points = torch.randn(37, 5, generator=torch.Generator().manual_seed(0))
    whole = [row[1] for row in measure(points).rows()]
    monkeypatch.setattr(separation, "_BLOCK_NUMBERS", numbers)
    assert [row[1] for row in measure(points).rows()] == pytest.approx(whole, rel=1e-9)
    assert smallest_angle(points) == pytest.approx(whole[0])


def test_scale_changes_nothing() -> None:
    points = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert [row[1] for row in measure(points * 64).rows()] == [row[1] for row in measure(points).rows()]


@pytest.mark.parametrize(
    ("method", "n", "d", "optimal"),
    [
        ("simplex", 10, 9, {"smallest_angle", "smallest_l2", "mean_l2", "coherence", "frame_potential"}),
        ("simplex", 10, 100, {"smallest_angle", "smallest_l2", "mean_l2"}),
        ("orthoplex", 20, 10, {"smallest_angle", "smallest_l2", "frame_potential"}),
        ("one-hot", 10, 10, {"coherence", "frame_potential"}),
        ("hadamard", 12, 12, {"smallest_linf", "mean_linf", "coherence", "frame_potential"}),
        ("kerdock", 144, 16, {"coherence", "frame_potential"}),
        ("polygon", 7, 2, {"smallest_angle", "coherence", "frame_potential"}),
    ],
)
def test_closed_forms_reach_their_bounds_and_no_others(method: str, n: int, d: int, optimal: set[str]) -> None:
    result = measure(make_prototypes(method, n, d).points)
    names = ("smallest_angle", "coherence", "frame_potential", "smallest_l2", "mean_l2", "smallest_linf", "mean_linf")
    reached = {name for name in names if (getattr(result, name).ratio or 0) > 1 - 1e-5}
    assert reached == optimal


def test_equal_points_have_no_distance() -> None:
    result = measure(torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]]))
    assert result.smallest_l2.value == result.smallest_linf.value == 0
    assert result.smallest_angle.value == pytest.approx(0, abs=1e-5)
    assert result.smallest_linf.ratio == 0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(1, 3), "separation needs at least 2 points, got 1"),
        (torch.tensor([[1.0], [0.0]]), "prototype 1 is zero: it has no direction, so no angles"),
        (torch.tensor([[1.0], [math.nan]]), "prototype 1 has a coordinate that is not a finite number"),
        (torch.tensor([[math.inf], [1.0]]), "prototype 0 has a coordinate that is not a finite number"),
    ],
)
def test_points_without_separation(points: torch.Tensor, message: str) -> None:
    with pytest.raises(RepulseError) as error:
        measure(points)
    assert str(error.value) == message
