"""Randomised smoothing against closed forms: binomial bounds, and linear classifiers, which smoothing leaves alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from repulse.certification.smoothing import (
    ABSTAINED,
    SmoothedModel,
    Smoothing,
    clopper_pearson,
    smooth,
    smoothed_prediction,
    smoothed_radius,
)
from repulse.common.errors import RepulseError
from repulse.common.seeding import generator


def half_spaces(pixels=9, seed=0):
    """Two classes on either side of a hyperplane through mid-grey."""
    layer = nn.Linear(pixels, 2)
    weight = torch.randn(pixels, generator=generator(seed, "test"))
    with torch.no_grad():
        layer.weight.copy_(torch.stack((weight, -weight)))
        layer.bias.copy_(torch.stack((-0.5 * weight.sum(), 0.5 * weight.sum())))
    return nn.Sequential(nn.Flatten(), layer)


def distance(model, x):
    """From each image to the hyperplane."""
    return (model(x)[:, 0] / model[1].weight[0].norm()).abs().double().detach()


def some(count, pixels=9):
    return torch.rand(count, 1, 3, pixels // 3, generator=generator(1, "images")), torch.arange(count)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1), st.floats(1e-5, 0.4))
def test_the_bound_is_the_exact_one_sided_binomial_one(n, share, alpha):
    k = round(share * n)
    exact = stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, method="exact")
    assert clopper_pearson(k, n, alpha) == pytest.approx(exact.low, rel=1e-9, abs=1e-12)


def test_the_bound_is_where_that_many_successes_are_as_rare_as_alpha():
    """By its definition, from the tail of the binomial distribution itself."""
    bound = clopper_pearson(870, 1000, 0.001)
    assert stats.binom.sf(869, 1000, bound) == pytest.approx(0.001, rel=1e-6)
    assert clopper_pearson(0, 10, 0.01) == 0
    assert clopper_pearson(10, 10, 0.01) == pytest.approx(0.01 ** (1 / 10))


def test_the_bound_exceeds_the_truth_no_more_often_than_alpha():
    truth, alpha, trials = 0.8, 0.05, 4000
    drawn = torch.binomial(
        torch.full((trials,), 100.0), torch.full((trials,), truth), generator=generator(0, "binomial")
    )
    above = sum(clopper_pearson(int(k), 100, alpha) > truth for k in drawn)
    # 4.5 deviations of a count with that mean.
    assert 0 < above <= alpha * trials + 4.5 * math.sqrt(alpha * trials)


def test_successes_must_be_possible():
    with pytest.raises(RepulseError) as error:
        clopper_pearson(11, 10, 0.01)
    assert str(error.value) == "successes must lie between 0 and the 10 trials, got 11"


def test_the_radius_of_a_linear_model_is_at_most_its_distance_but_for_one_in_one_over_alpha():
    """Smoothing a linear model changes nothing, and its exact radius is the distance to the hyperplane."""
    model = half_spaces()
    x, ids = some(300)
    smoothing = Smoothing(sigma=0.25, n0=20, n=400, alpha=0.02)
    found = smooth(model, x, smoothing, ids=ids)
    sure = found.prediction != ABSTAINED
    assert sure.double().mean() > 0.7
    wrong = sure & (found.prediction != model(x).argmax(1))
    exact = distance(model, x)
    # A wrong class is a radius that is too large as well: the right one is negative.
    too_large = int((wrong | (found.radius > exact)).sum())
    # Six are expected at most; with five deviations above it, the bound is still far below a radius of p without bound.
    assert too_large <= 0.02 * 300 + 5 * math.sqrt(6)
    # Within what 400 draws can prove, not much is given away.
    near = sure & (exact < 0.35)
    assert (found.radius[near] > exact[near] - 0.12).double().mean() > 0.9
    unbounded = smoothing.sigma * stats.norm.ppf((found.count[near] / 400).clamp_max(1 - 1e-9).numpy())
    assert (torch.as_tensor(unbounded) > exact[near]).double().mean() > 0.3


def test_the_noise_has_the_deviation_that_is_stated():
    """The share of draws on the far side of a hyperplane at a known distance is a normal tail of distance / sigma."""
    model = half_spaces()
    x, ids = some(40)
    found = smooth(model, x, Smoothing(sigma=0.3, n0=50, n=4000), ids=ids)
    expected = torch.as_tensor(stats.norm.cdf(distance(model, x).numpy() / 0.3))
    sure = found.prediction != ABSTAINED
    assert (found.count / 4000 - expected)[sure].abs().max() < 4.5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("batch_size", [1, 70, 1000])
def test_batch_size_order_and_neighbours_change_nothing(batch_size):
    model = half_spaces(seed=3)
    x, ids = some(12)
    smoothing = Smoothing(n0=30, n=130, alpha=0.05)
    whole = smooth(model, x, smoothing, ids=ids)
    order = torch.tensor([7, 2, 11])
    part = smooth(model, x[order], smoothing, ids=ids[order], batch_size=batch_size)
    for name in ("prediction", "count", "radius"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[order]), name
    other = smooth(model, x[order], smoothing, ids=ids[order], seed=1)
    assert not torch.equal(other.count, part.count)


class Coin(nn.Module):
    """A classifier that looks at nothing but the noise: the sign of one pixel's last digits."""

    def forward(self, x):
        up = ((x.flatten(1)[:, 0] * 1e4).floor() % 2).unsqueeze(1)
        return torch.cat((up, 1 - up), 1)


def test_pure_noise_makes_it_abstain():
    x, ids = some(25)
    smoothing = Smoothing(n0=20, n=500, alpha=0.001)
    found = smooth(Coin(), x, smoothing, ids=ids)
    assert (found.prediction == ABSTAINED).all()
    assert (found.radius == 0).all()
    assert (smoothed_prediction(Coin(), x, smoothing, ids=ids) == ABSTAINED).all()


def test_a_prediction_without_radius_is_that_of_the_certificate_where_both_are_sure():
    model = half_spaces()
    x, ids = some(40)
    smoothing = Smoothing(n0=20, n=300, alpha=0.01)
    certified, predicted = smooth(model, x, smoothing, ids=ids), smoothed_prediction(model, x, smoothing, ids=ids)
    both = (certified.prediction != ABSTAINED) & (predicted != ABSTAINED)
    assert both.double().mean() > 0.7
    assert torch.equal(certified.prediction[both], predicted[both])


def test_the_largest_radius_is_that_of_all_draws_agreeing():
    smoothing = Smoothing(sigma=0.25, n=100_000)
    assert smoothed_radius(100_000, smoothing) == pytest.approx(0.25 * stats.norm.ppf(0.001 ** (1 / 100_000)))
    assert smoothed_radius(100_000, smoothing) == pytest.approx(0.95, abs=0.005)
    assert smoothed_radius(10_000, Smoothing(sigma=0.25)) == pytest.approx(0.80, abs=0.005)
    assert smoothed_radius(50_000, smoothing) == 0


def test_attacks_see_the_mean_of_the_softmax_over_the_same_draws():
    model = half_spaces()
    x, _ = some(5)
    smoothed = SmoothedModel(model, Smoothing(sigma=0.2), (1, 3, 3), draws=7, seed=0)
    by_hand = torch.stack([model(x + noise).softmax(1) for noise in smoothed.noise]).mean(0)
    assert torch.allclose(smoothed(x).exp(), by_hand, atol=1e-6)
    assert torch.equal(smoothed(x), smoothed(x))
    assert smoothed.noise.std() == pytest.approx(0.2, rel=0.35)


def test_the_model_is_left_in_the_mode_that_it_was_in():
    model = nn.Sequential(half_spaces(), nn.Dropout(0.5)).train()
    x, ids = some(2)
    first = smooth(model, x, Smoothing(n0=10, n=100), ids=ids)
    assert model.training
    assert torch.equal(first.count, smooth(model[0], x, Smoothing(n0=10, n=100), ids=ids).count)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive, got 0.0"),
        ({"n": 0}, "n0 and n must be at least 1, got 100 and 0"),
        ({"alpha": 1.0}, "alpha must lie between 0 and 1, got 1.0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RepulseError) as error:
        Smoothing(**changes)
    assert str(error.value) == message
