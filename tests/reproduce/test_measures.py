"""What is measured of a cell beside its evaluation: passes, separation, transfer."""

import math

import pytest
import torch
from torch import nn

from repulse.attacks import Threat
from repulse.common.seeding import generator
from repulse.common.settings import merge
from repulse.data import load_data
from repulse.prototypes import make_prototypes
from repulse.reproduce.comparisons import cell_config
from repulse.reproduce.measures import Counter, correct, count_passes, craft, learned_separation, smallest_angle
from repulse.run_folder import Classes, build_model


def model_of(config):
    classes = Classes(tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,), "digits", "")
    return build_model(config, make_prototypes("simplex", 10, 10), classes)


@pytest.mark.parametrize(
    ("method", "recipe", "expected"),
    [
        ("simplex", {}, (1, 1)),
        ("simplex", {"name": "fgsm-rs"}, (2, 2)),
        ("simplex", {"name": "pgd", "steps": 3}, (4, 4)),
        # A look at the clean image, two steps, and both batches that are minimised; the first look needs no gradient.
        ("simplex", {"name": "trades", "steps": 2}, (5, 4)),
        ("simplex", {"name": "input-gradient"}, (1, 2)),
    ],
)
def test_passes_are_those_that_the_recipes_state(method, recipe, expected):
    config = merge(cell_config("fashion", method, 0, "digits", scale="smoke"), {"recipe": recipe}, "test")
    assert count_passes(config, model_of(config), load_data("digits").train) == expected


def test_a_counter_counts_images_and_not_calls():
    layer, counter = nn.Linear(2, 2), Counter()
    x = torch.rand(5, 2, requires_grad=True)
    with counter.watch(layer):
        z = layer(x)
        (first,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
        torch.autograd.backward(first.square().sum() + z.sum())
        with torch.no_grad():
            layer(x[:3])
    layer(x)
    assert (counter.forward, counter.backward) == (8, 10)


def test_separation_of_a_perfect_embedding_is_that_of_the_prototypes():
    # Learnt ones are parameters.
    prototypes = nn.Parameter(make_prototypes("simplex", 4, 4).points)
    labels = torch.arange(40) % 4
    found = learned_separation(7 * prototypes.detach()[labels], labels, prototypes)
    best = math.degrees(math.acos(-1 / 3))
    assert found["angle"] == pytest.approx(best, abs=1e-4)
    assert found["prototype_angle"] == pytest.approx(best, abs=1e-4)
    assert found["spread"] == pytest.approx(0, abs=1e-6)


def test_separation_by_hand():
    """Two classes at (0, 0) and (4, 0), each with points one above and one below its mean."""
    z = torch.tensor([[0.0, 1], [0, -1], [4, 1], [4, -1]])
    labels = torch.tensor([0, 0, 1, 1])
    found = learned_separation(z, labels, torch.eye(2))
    assert found["spread"] == pytest.approx(1 / 4)
    assert found["angle"] == pytest.approx(180)
    assert found["angle_at_origin"] is None
    assert found["prototype_angle_at_origin"] == pytest.approx(90)
    assert found["prototype_angle"] == pytest.approx(180)


def test_separation_does_not_feel_a_shift_of_all_logits_nor_scale():
    z = torch.randn(60, 5, generator=generator("separation"))
    labels = torch.arange(60) % 5
    one = learned_separation(z, labels, torch.eye(5))
    other = learned_separation(3 * (z + 11), labels, torch.eye(5))
    for name in ("angle", "spread"):
        assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_the_smallest_angle_is_that_of_the_nearest_pair():
    points = torch.tensor([[1.0, 0], [0, 5], [1, 1]])
    assert smallest_angle(points) == pytest.approx(45)


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(4, 2, bias=False)
        self.layer.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_crafted_images_go_to_the_corner_that_hurts_most_even_beyond_success():
    """On a linear model the margin rises along one sign vector, so that is where 20 steps of eps / 4 must end."""
    model = Linear([[1.0, -1, 2, 0.5], [0.0, 0, 0, 0]])
    images = torch.rand(30, 1, 2, 2, generator=generator("craft")) * 0.6 + 0.2
    labels = torch.zeros(30, dtype=torch.int64)
    threat = Threat("linf", 0.1)
    found = craft(model, images, labels, threat, steps=20, seed=1)
    expected = images - 0.1 * torch.tensor([1.0, -1, 1, 1]).view(1, 1, 2, 2)
    torch.testing.assert_close(found, expected)
    assert torch.equal(correct(model, images, labels), images.flatten(1) @ model.layer.weight[0] >= 0)


def test_crafted_images_do_not_depend_on_their_neighbours():
    config = cell_config("fashion", "simplex", 0, "digits", scale="smoke")
    model = model_of(config).eval()
    source = load_data("digits").test
    images = source.fetch(torch.arange(6)).float() / 255
    labels = source.labels[:6]
    threat = Threat("linf", 0.1)
    whole = craft(model, images, labels, threat, steps=3)
    torch.testing.assert_close(craft(model, images[4:], labels[4:], threat, steps=3), whole[4:], atol=1e-5, rtol=0)
    assert (whole - images).abs().max() <= 0.1 + 1e-6
    assert whole.min() >= 0
    assert whole.max() <= 1
