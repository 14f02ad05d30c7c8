import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repulse.attacks import Threat
from repulse.attacks.noise import Noise
from repulse.common.errors import RepulseError

NORMS = st.sampled_from(["linf", "l2"])
EPS = st.floats(0, 3)
SEEDS = st.integers(0, 1000)


def images(seed, count=4, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 2, 3, 3, generator=generator)


@given(norm=NORMS, eps=EPS, seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_projection_lands_inside_and_moves_nothing_that_is_inside(norm, eps, seed):
    threat = Threat(norm, eps)
    clean, far = images(seed), images(seed + 1, low=-2, high=3)
    landed = threat.project(far, clean)
    assert (threat.distance(landed, clean) <= eps + threat.tolerance).all()
    assert landed.min() >= 0
    assert landed.max() <= 1
    torch.testing.assert_close(threat.project(landed, clean), landed, atol=1e-5, rtol=0)


@given(norm=NORMS, eps=EPS, seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_random_points_are_inside(norm, eps, seed):
    threat = Threat(norm, eps)
    clean = images(seed)
    point = threat.random_point(clean, Noise(seed, torch.arange(4)), 0)
    assert (threat.distance(point, clean) <= eps + threat.tolerance).all()
    assert point.min() >= 0
    assert point.max() <= 1


def test_the_l2_projection_is_the_nearest_point():
    """Brute force: no point of the ball that was sampled lies nearer."""
    threat = Threat("l2", 0.5, low=-10.0, high=10.0)
    clean = torch.zeros(1, 2)
    far = torch.tensor([[3.0, 4.0]])
    angles = torch.linspace(0, 2 * math.pi, 10_000)
    ball = 0.5 * torch.stack((angles.cos(), angles.sin()), 1)
    nearest = (ball - far).norm(dim=1).min()
    torch.testing.assert_close((threat.project(far, clean) - far).norm(), nearest, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_steepest_step_rises_most_among_steps_of_its_length(norm):
    threat = Threat(norm, 1.0)
    gradient = images(0, low=-1, high=1)
    step = threat.steepest_step(gradient, 0.3)
    rise = (gradient * step).flatten(1).sum(1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = torch.randn(gradient.shape, generator=generator)
        other = 0.3 * other / threat.distance(other, torch.zeros_like(other)).view(-1, 1, 1, 1)
        assert ((gradient * other).flatten(1).sum(1) <= rise + 1e-5).all()


def test_an_l2_step_along_a_tiny_gradient_has_full_length():
    step = Threat("l2", 1.0).steepest_step(torch.full((1, 3), 1e-30), 0.5)
    assert step.norm().item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_flat_objective_gives_no_step(norm):
    assert (Threat(norm, 1.0).steepest_step(torch.zeros(2, 3), 0.5) == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_points_fill_the_ball(norm):
    """The share inside a ball of radius r eps is r to the number of dimensions."""
    threat = Threat(norm, 0.1)
    clean = torch.full((4000, 3), 0.5)
    distance = threat.distance(threat.random_point(clean, Noise(0, torch.arange(4000)), 0), clean) / 0.1
    for radius in (0.5, 0.8):
        assert (distance <= radius).double().mean().item() == pytest.approx(radius**3, abs=0.03)


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("l1", 1.0, "norm must be 'linf' or 'l2', got 'l1'"),
        ("linf", -0.1, "eps must be a finite number, not negative, got -0.1"),
        ("l2", math.nan, "eps must be a finite number, not negative, got nan"),
    ],
)
def test_impossible_threats_are_refused(norm, eps, message):
    with pytest.raises(Exception, match=message if norm != "l1" else "norm|l1") as caught:
        Threat(norm, eps)
    if norm != "l1":  # the type checker that tests run under refuses an unknown norm before we do
        assert isinstance(caught.value, RepulseError)
