"""Free adversarial training: what it costs, where its images lie, and how it goes on."""

import pytest
import torch
from tasks import CROSS_ENTROPY, Witness, data, grey, linear, outwards, train

from repulse.attacks import Threat
from repulse.common.errors import RepulseError
from repulse.config.presets import preset
from repulse.training import RECIPES, Task
from repulse.training.recipes.free import Free, WarmPerturbation
from repulse.training.settings import FitSettings


def clean_twins(passes, images):
    """The clean images and labels that the passes show, found by what lies nearest."""
    pixels = images.images.float() / 255
    found = [torch.cdist(shown.flatten(1), pixels.flatten(1), p=float("inf")).argmin(1) for shown in passes]
    return [pixels[index] for index in found], [images.labels[index] for index in found]


FROZEN = {"optimiser": {"learning_rate": 1e-12, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}}


def test_every_pass_is_one_forward_one_backward_and_one_step():
    """2 epochs of 3 batches, each passed 4 times: 24 passes, and a schedule over 24 steps."""
    witness = Witness()
    model = train(Free(replays=4), data(), watcher=witness)
    assert (len(model.backbone.images), model.backbone.backward) == (24, 24)
    assert witness.steps == [(epoch, step, 3, 8) for epoch in (0, 1) for step in (1, 2, 3)]
    schedule = FitSettings().schedule
    rates = [0.1 * schedule.factor(last, 24) for last in (11, 23)]
    assert [metrics.learning_rate for metrics in witness.metrics] == pytest.approx(rates)


def test_the_recipe_itself_costs_one_pass():
    model, _ = linear()
    x, y = grey()
    Free()(Task(model, CROSS_ENTROPY), x, y).values.sum().backward()
    assert (len(model.backbone.images), model.backbone.backward) == (1, 1)


def test_one_replay_without_a_ball_is_plain_training():
    plain, free = train(None, data()), train(Free(eps=0.0, replays=1), data())
    assert torch.equal(plain.backbone.body[1].weight, free.backbone.body[1].weight)


def test_against_a_linear_model_the_perturbation_is_at_the_corner_after_one_pass():
    """The gradient has the sign of the wrong class's weights minus the own one's, whatever the image.

    So each epoch begins clean; the next batch begins at the last one's corner, crosses to its own in two steps of eps
    where the classes differ, and stays there where they agree.
    """
    images = data()
    model = train(Free(eps=0.1, replays=3), images, FROZEN)
    passes = model.backbone.images
    weight = model.backbone.body[1].weight.detach()
    cleans, labels = clean_twins(passes, images)
    moved = [shown - clean for shown, clean in zip(passes, cleans, strict=True)]
    corners = [0.1 * outwards(weight, y).sign() for y in labels]
    close = {"rtol": 0, "atol": 1e-6}
    for first in (0, 9):
        torch.testing.assert_close(moved[first], torch.zeros_like(moved[first]), **close)
        for replay in (first + 1, first + 2):
            torch.testing.assert_close(moved[replay], corners[replay], **close)
        for batch in (first + 3, first + 6):
            torch.testing.assert_close(moved[batch], corners[batch - 1], **close)
            torch.testing.assert_close(moved[batch + 1], (corners[batch - 1] + corners[batch]) / 2, **close)
            torch.testing.assert_close(moved[batch + 2], corners[batch], **close)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_lie_in_the_ball_and_are_images(norm):
    images = data(low=0, high=256)
    model = train(Free(eps=0.15, replays=3, norm=norm), images)
    threat = Threat(norm, 0.15)
    cleans, _ = clean_twins(model.backbone.images, images)
    distances = [threat.distance(shown, clean) for shown, clean in zip(model.backbone.images, cleans, strict=True)]
    assert all(float(distance.max()) <= 0.15 + threat.tolerance for distance in distances)
    assert all(shown.min() >= 0 and shown.max() <= 1 for shown in model.backbone.images)
    assert min(float(distance.min()) for distance in distances[1:9]) > 0.02


def test_where_a_pixel_cannot_move_its_perturbation_stays():
    """As in the source, the gradient passes through the range of pixels: a black pixel pulled down has none."""
    perturbation = WarmPerturbation("linf", 0.1, 0.1)
    x = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
    for _ in range(2):
        perturbation.moved(x).sum().neg().backward()
        perturbation.climb()
    torch.testing.assert_close(perturbation.moved(x).detach(), torch.tensor([0.0, 0.4]).view(1, 1, 1, 2))
    (perturbation.moved(x + 0.5) * torch.tensor([1.0, -1.0])).sum().backward()
    perturbation.climb()
    torch.testing.assert_close(perturbation.moved(x + 0.3).detach().flatten(), torch.tensor([0.3, 0.7]))


def test_batches_of_other_sizes_share_the_places_they_have():
    perturbation = WarmPerturbation("linf", 0.1, 0.1)
    for size in (4, 6, 3, 6):
        moved = perturbation.moved(torch.full((size, 1, 2, 2), 0.5))
        assert len(moved) == size
        moved.sum().backward()
        perturbation.climb()
        torch.testing.assert_close(
            perturbation.moved(torch.full((6, 1, 2, 2), 0.5))[:size].detach().mean(), torch.tensor(0.6)
        )


@pytest.mark.parametrize("averaging", ["none", {"name": "ema", "decay": 0.9}, "lookahead"], ids=str)
def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit(averaging):
    witness, changes = Witness(), {"epochs": 3, "averaging": averaging}
    whole = train(Free(replays=2), data(), changes, watcher=witness)
    for state in witness.states[:2]:
        resumed = train(Free(replays=2), data(), changes, seed=9, state=state)
        assert torch.equal(resumed.backbone.body[1].weight, whole.backbone.body[1].weight)


def test_the_defaults_are_the_sources():
    assert RECIPES["free"]() == Free(eps=8 / 255, replays=8, step_size=None, norm="linf")
    assert preset("free").recipe == preset("free-simplex").recipe == Free()
    assert Free().drift()._step_size == 8 / 255


def test_no_replays_are_refused():
    with pytest.raises(
        RepulseError, match=r"^recipe 'free': replays: input should be greater than or equal to 1, got 0$"
    ):
        Free(replays=0)
