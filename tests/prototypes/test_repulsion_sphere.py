"""Repulsion on the sphere against the best codes that are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repulse.common.errors import RepulseError
from repulse.prototypes import make_prototypes, repulsion_sphere
from repulse.prototypes.bounds import angle_bound
from repulse.prototypes.closed_form import random
from repulse.prototypes.repulsion_sphere import default_steps
from repulse.prototypes.separation import smallest_angle

SLOANE = "Sloane, Hardin, Smith, Tables of Spherical Codes"
SHARP = "Cohn and Kumar, Universally optimal distribution of points on spheres, table 1"
ROOTS = "minimal vectors of a root lattice: Conway and Sloane, SPLAG, chapter 4"

# (n, d), smallest angle in degrees, source; all with n > 2 d.
BEST_KNOWN = [
    (7, 3, 77.8695, SLOANE),
    (8, 3, 74.8585, SLOANE),
    (9, 3, 70.5288, SLOANE),
    (10, 3, 66.1468, SLOANE),
    (11, 3, 63.4349, SLOANE),
    (12, 3, 63.4349, f"icosahedron; {SHARP}"),
    (24, 3, 43.6908, f"snub cube; {SLOANE}"),
    (10, 4, 80.4060, SLOANE),
    (24, 4, 60.0, f"24-cell, roots of D4; {ROOTS}"),
    (16, 5, math.degrees(math.acos(1 / 5)), SHARP),
    (27, 6, math.degrees(math.acos(1 / 4)), SHARP),
    (72, 6, 60.0, f"roots of E6; {ROOTS}"),
    (56, 7, math.degrees(math.acos(1 / 3)), SHARP),
    (240, 8, 60.0, f"roots of E8; {SHARP}"),
]


@pytest.mark.parametrize(("n", "d", "best", "source"), BEST_KNOWN)
def test_within_half_a_degree_of_the_best_known_code(n: int, d: int, best: float, source: str) -> None:
    reached = smallest_angle(make_prototypes("repulsive-sphere", n, d).points)
    assert best - 0.5 < reached < best + 1e-3, source


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 5), (4, 3), (6, 9), (7, 5), (10, 5), (15, 8)])
def test_where_the_best_is_known_it_is_reached(n: int, d: int) -> None:
    reached = smallest_angle(make_prototypes("repulsive-sphere", n, d).points)
    assert reached == pytest.approx(angle_bound(n, d).value, abs=0.1)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 30))
def test_never_worse_than_random_nor_than_the_orthoplex(n: int, d: int, seed: int, steps: int) -> None:
    made = make_prototypes("repulsive-sphere", n, d, seed=seed, steps=steps)
    reached = smallest_angle(made.points)
    assert reached >= smallest_angle(random(n, d, seed)) - 1e-3
    assert reached <= angle_bound(n, d).value + 1e-2
    if n <= 2 * d:
        assert reached >= 90 - 1e-3
    assert torch.allclose(made.points.norm(dim=1), torch.ones(n), atol=1e-5)
    assert made.steps == steps


def test_the_same_seed_gives_the_same_points() -> None:
    first, again, other = (make_prototypes("repulsive-sphere", 20, 4, seed=seed, steps=50) for seed in (5, 5, 6))
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.points, other.points)


def test_the_force_is_the_gradient_of_the_energy_in_blocks_too(monkeypatch) -> None:
    points = random(23, 5, 0)[None].requires_grad_()
    pairs = torch.triu_indices(23, 23, 1)
    cosines = (points[0] @ points[0].T)[pairs[0], pairs[1]]
    reference = cosines.detach().max()
    ((cosines - reference) * 7.0).exp().sum().backward()
    assert points.grad is not None
    for numbers in (10**6, 23 * 4, 1):
        monkeypatch.setattr(repulsion_sphere, "_BLOCK_NUMBERS", numbers)
        force, largest = repulsion_sphere._force(points.detach(), 7.0, reference[None])
        torch.testing.assert_close(7.0 * force, points.grad)
        assert float(largest) == pytest.approx(float(reference), abs=1e-6)


def test_better_than_random_in_a_higher_dimension() -> None:
    made = make_prototypes("repulsive-sphere", 600, 64, steps=100)
    reached, bound = smallest_angle(made.points), angle_bound(600, 64).value
    assert smallest_angle(random(600, 64, 0)) < 62 < 82 < reached < bound


def test_default_steps_fall_with_the_work_of_one() -> None:
    assert default_steps(1000, 128) == 1500
    assert 200 < default_steps(10_000, 512) < 300
    assert default_steps(100_000, 512) == 60


def test_a_line_holds_two_points() -> None:
    with pytest.raises(RepulseError) as error:
        make_prototypes("repulsive-sphere", 3, 1)
    assert str(error.value) == (
        "no repulsive-sphere prototypes with n=3, d=1: a line has two directions; method 'auto' takes any n with d >= 2"
    )
