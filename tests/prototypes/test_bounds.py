"""Bounds are tight where theory says so, and never below what exists."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from repulse.prototypes import bounds

# Sharp codes, where Levenshtein's bound is met: (n, d, largest cosine), Cohn and Kumar, table 1.
SHARP = [
    (12, 3, 5**-0.5),
    (16, 5, 1 / 5),
    (27, 6, 1 / 4),
    (56, 7, 1 / 3),
    (240, 8, 1 / 2),
    (112, 21, 1 / 9),
    (162, 21, 1 / 7),
    (100, 22, 1 / 11),
    (275, 22, 1 / 6),
    (891, 22, 1 / 4),
    (552, 23, 1 / 5),
    (4600, 23, 1 / 3),
    (196_560, 24, 1 / 2),
]


@pytest.mark.parametrize(("n", "d", "cosine"), SHARP)
def test_levenshtein_is_met_by_sharp_codes(n: int, d: int, cosine: float) -> None:
    assert bounds.levenshtein_cosine(n, d) == pytest.approx(cosine, abs=1e-9)


@pytest.mark.parametrize("d", [3, 4, 10, 100])
def test_levenshtein_agrees_with_simplex_and_orthoplex_and_grows(d: int) -> None:
    assert bounds.levenshtein_cosine(d + 1, d) == pytest.approx(-1 / d, abs=1e-9)
    assert bounds.levenshtein_cosine(2 * d, d) == pytest.approx(0, abs=1e-9)
    values = [bounds.levenshtein_cosine(n, d) for n in range(2, 300, 7)]
    assert all(a < b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(("n", "degrees"), [(3, 120), (4, 109.4712), (6, 90), (12, 63.4349)])
def test_angles_in_space(n: int, degrees: float) -> None:
    assert bounds.angle_bound(n, 3).value == pytest.approx(degrees, abs=1e-4)


def test_fejes_toth_takes_over_where_it_is_stronger() -> None:
    assert bounds.angle_bound(24, 3).source == "Fejes Toth 1943"
    assert bounds.angle_bound(13, 3).source == "Levenshtein 1979"
    # Proved maxima: 57.1367 degrees for 13 points (Musin and Tarasov 2012), 43.6908 for 24 (Robinson 1961).
    assert 57.1367 < bounds.angle_bound(13, 3).value < 61
    assert 43.6907 < bounds.angle_bound(24, 3).value < 45


def test_small_dimensions_are_exact() -> None:
    assert bounds.angle_bound(2, 1).value == 180
    assert bounds.angle_bound(5, 1).value == 0
    assert bounds.angle_bound(7, 2).value == pytest.approx(360 / 7)
    assert bounds.l2_bound(5, 1).value == 0.5
    assert bounds.coherence_bound(3, 1).value == 1
    assert bounds.coherence_bound(5, 2).value == pytest.approx(math.cos(math.pi / 5))


def test_coherence_is_met_by_known_line_systems() -> None:
    # Six diagonals of the icosahedron; 28 equiangular lines in 7-d; 276 in 23-d: Welch's bound.
    for n, d, cosine in [(6, 3, 5**-0.5), (28, 7, 1 / 3), (276, 23, 1 / 5)]:
        assert bounds.coherence_bound(n, d).value == pytest.approx(cosine)
    # Mutually unbiased bases, and the 120 lines of E8: Levenshtein's.
    for n, d, cosine in [(12, 4, 1 / 2), (144, 16, 1 / 4), (2112, 64, 1 / 8), (120, 8, 1 / 2)]:
        assert bounds.coherence_bound(n, d).value == pytest.approx(cosine)
    assert bounds.coherence_bound(4, 9).value == 0


def test_box_distances_by_brute_force() -> None:
    # In one dimension an even grid; in two, four corners, then a 3 x 3 grid.
    assert bounds.linf_bound(5, 1).value == 0.5
    assert [bounds.linf_bound(n, 2).value for n in (4, 5, 9, 10)] == [2, 1, 1, 2 / 3]
    # Mean: the best multiset of corners, tried one by one.
    for n, d in [(3, 1), (5, 1), (6, 1), (5, 2), (7, 2)]:
        corners = list(itertools.product((-1.0, 1.0), repeat=d))
        best = 0.0
        for chosen in itertools.combinations_with_replacement(corners, n):
            points = torch.tensor(chosen)
            best = max(best, float(torch.pdist(points, p=math.inf).mean()))
        assert bounds.mean_linf_bound(n, d).value == pytest.approx(best)
    assert bounds.mean_linf_bound(1000, 2048).value == 2


def test_frame_potential_of_a_tight_frame() -> None:
    assert bounds.frame_potential_bound(12, 3).value == 48
    assert bounds.frame_potential_bound(3, 12).value == 3
