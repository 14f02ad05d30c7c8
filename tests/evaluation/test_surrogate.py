"""A surrogate learns the victim's decisions, not the truth, and always the same."""

import pytest
import torch
from torch import nn

from repulse.attacks import RandomSearch, Threat, Transfer
from repulse.common.errors import RepulseError
from repulse.evaluation.surrogate import train_surrogate

THREAT = Threat("linf", 0.1)


class Quadrants(nn.Module):
    """Three classes: which of three quarters of the image is brightest; as a staircase, so without gradient."""

    def forward(self, x):
        quarters = nn.functional.adaptive_avg_pool2d((x * 32).round() / 32, 2).flatten(1)[:, :3]
        return quarters + 0 * x.flatten(1)[:, :3]


def bright(count, shape=(1, 8, 8), seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_it_agrees_with_the_victim_on_images_it_never_saw():
    victim = Quadrants()
    surrogate = train_surrogate(victim, bright(300), THREAT, steps=200, width=8)
    x = bright(300, seed=1)
    agreement = (surrogate(x).argmax(1) == victim(x).argmax(1)).float().mean()
    # By chance: a third.
    assert agreement > 0.6


def test_its_images_fool_a_victim_without_gradient_more_often_than_random_points_do():
    victim, x = Quadrants(), bright(200)
    y = victim(x).argmax(1)
    surrogate = train_surrogate(victim, x, THREAT, steps=200, width=8)
    threat = Threat("linf", 0.06)
    transferred = Transfer(surrogate)(victim, x, y, threat).fooled.float().mean()
    drawn = RandomSearch(tries=20)(victim, x, y, threat).fooled.float().mean()
    assert transferred > drawn + 0.2


@pytest.mark.parametrize("shape", [(16,), (2, 10), (1, 4, 4), (2, 2, 2, 3)])
def test_signals_and_tables_get_a_perceptron(shape):
    victim = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 2))
    x = bright(200, shape)
    surrogate = train_surrogate(victim, x, THREAT, steps=100, width=2)
    assert (surrogate(x).argmax(1) == victim(x).argmax(1)).float().mean() > 0.9


def test_it_depends_on_the_seed_alone_and_leaves_the_random_numbers_and_the_victim_as_they_were():
    victim, x = Quadrants().train(), bright(20)
    before = torch.random.get_rng_state()
    first = train_surrogate(victim, x, THREAT, steps=5, width=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    again = train_surrogate(victim, x, THREAT, steps=5, width=4)
    other = train_surrogate(victim, x, THREAT, steps=5, width=4, seed=1)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert victim.training
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_the_victim_is_asked_once_for_each_image_and_copy():
    class Counting(Quadrants):
        count = 0

        def forward(self, x):
            self.count += len(x)
            return super().forward(x)

    victim = Counting()
    train_surrogate(victim, bright(30), THREAT, steps=2, copies=2, width=4)
    assert victim.count == 90


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_images_that_are_all_alike_and_a_single_image_work(value):
    surrogate = train_surrogate(Quadrants(), torch.full((1, 1, 8, 8), value), THREAT, steps=3, copies=0, width=4)
    assert surrogate(bright(2)).isfinite().all()


@pytest.mark.parametrize("settings", [{"steps": 0}, {"batch": 1}, {"width": 0}, {"copies": -1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(RepulseError, match=f"{next(iter(settings))} must be at least"):
        train_surrogate(Quadrants(), bright(4), THREAT, **settings)


def test_no_images_are_refused():
    with pytest.raises(RepulseError, match="got none"):
        train_surrogate(Quadrants(), bright(0), THREAT)
