"""Threats of their own for every image: on linear models the worst point of a box is known exactly."""

import pytest
import torch
from torch import nn

from repulse.attacks import APGD, FAB, FMN, OBJECTIVES, PGD, Square, Threat, ThreatPerImage, ensemble
from repulse.common.errors import RepulseError

FEATURES, CLASSES, COUNT = 6, 3, 60


def linear():
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        model.bias.copy_(-0.5 * model.weight.sum(1))
    return model


@pytest.fixture
def rows():
    x = 0.3 + 0.4 * torch.rand(COUNT, FEATURES, generator=torch.Generator().manual_seed(1))
    return x, linear()(x).argmax(1)


def beatable(model, x, y, low, high):
    """Whether some class overtakes the true one in the box: the gap is linear, so each feature goes to one end."""
    weight, bias = model.weight.detach(), model.bias.detach()
    gap = weight - weight[y].unsqueeze(1)
    most = (gap.clamp_min(0) * high.unsqueeze(1) + gap.clamp_max(0) * low.unsqueeze(1)).sum(2)
    return (most + bias - bias[y].unsqueeze(1)).scatter(1, y.unsqueeze(1), -torch.inf).amax(1) > 0


ATTACKS = {
    "pgd": PGD(OBJECTIVES["margin"], steps=40, restarts=2, random_start=True),
    "apgd": APGD(OBJECTIVES["margin"], steps=40),
    "fab": FAB(steps=30),
    "fmn": FMN(steps=30),
    "quick": ensemble("quick"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_in_boxes_of_their_own_what_can_be_beaten_is_and_nothing_else(rows, name):
    x, y = rows
    generator = torch.Generator().manual_seed(2)
    low = x - 0.15 * torch.rand(x.shape, generator=generator)
    high = x + 0.15 * torch.rand(x.shape, generator=generator)
    # Some features may not change at all.
    low[:, 0], high[:, 0] = x[:, 0], x[:, 0]
    result = ATTACKS[name](linear(), x, y, ThreatPerImage("linf", low=low, high=high))
    truth = beatable(linear(), x, y, low, high)
    assert 0.1 < truth.float().mean() < 0.9
    assert not (result.fooled & ~truth).any()
    assert (result.fooled == truth).float().mean() >= 0.95
    assert ((result.adversarial >= low) & (result.adversarial <= high)).all()
    assert torch.equal(result.adversarial[:, 0], x[:, 0])
    assert torch.equal(linear()(result.adversarial).argmax(1) != y, result.fooled)


def test_radii_of_their_own_are_the_balls_that_they_say(rows):
    x, y = rows
    eps = torch.linspace(0, 0.2, COUNT)
    result = ATTACKS["quick"](linear(), x, y, ThreatPerImage("linf", eps))
    column = eps.unsqueeze(1)
    truth = beatable(linear(), x, y, (x - column).clamp(0, 1), (x + column).clamp(0, 1))
    assert torch.equal(result.fooled, truth)
    assert ((result.adversarial - x).abs().amax(1) <= eps + 1e-6).all()


def test_one_radius_for_all_finds_what_a_threat_finds(rows):
    x, y = rows
    for norm in ("linf", "l2"):
        ours = ATTACKS["apgd"](linear(), x, y, ThreatPerImage(norm, 0.1))
        theirs = ATTACKS["apgd"](linear(), x, y, Threat(norm, 0.1))
        assert torch.equal(ours.fooled, theirs.fooled)


def test_radii_in_l2_are_those_of_each_image(rows):
    x, y = rows
    eps = torch.tensor([0.05, 0.1, 0.2])[torch.arange(COUNT) % 3]
    result = ATTACKS["apgd"](linear(), x, y, ThreatPerImage("l2", eps))
    for radius in eps.unique():
        own = eps == radius
        alone = ATTACKS["apgd"](linear(), x[own], y[own], Threat("l2", float(radius)), ids=own.nonzero().flatten())
        assert torch.equal(result.fooled[own], alone.fooled)
    assert ((result.adversarial - x).norm(dim=1) <= eps * 1.0001 + 1e-5).all()


def test_features_in_their_own_units_need_no_scaling(rows):
    """Years and dollars: the same rows, and so the same outcome, as in [0, 1]."""
    x, y = rows
    least, most = torch.tensor([0.0, 18, -5, 0, 1e3, 2]), torch.tensor([1.0, 90, 5, 10, 9e4, 3])

    class Units(nn.Module):
        def forward(self, features):
            return linear()((features - least) / (most - least))

    low, high = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    box = ThreatPerImage("linf", low=least + low * (most - least), high=least + high * (most - least))
    result = ATTACKS["apgd"](Units(), least + x * (most - least), y, box)
    assert torch.equal(result.fooled, beatable(linear(), x, y, low, high))


def test_a_search_without_gradients_stays_in_the_boxes():
    images = 0.4 + 0.2 * torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    y, low, high = model(images).argmax(1), images - 0.1, images + 0.2
    result = Square(queries=50)(model, images, y, ThreatPerImage("linf", low=low, high=high))
    assert ((result.adversarial >= low) & (result.adversarial <= high)).all()
    assert torch.equal(model(result.adversarial).argmax(1) != y, result.fooled)


@pytest.mark.parametrize(
    ("threat", "said"),
    [
        ({"norm": "linf", "eps": torch.zeros(3)}, "60 images but 3 radii"),
        ({"norm": "linf", "eps": -1.0}, "none of them negative"),
        ({"norm": "linf", "low": torch.zeros(4)}, r"low must be a number, or have shape \(6,\) or \(60, 6\)"),
        ({"norm": "linf", "low": 0.6}, "an image lies outside its box"),
        ({"norm": "linf", "low": 0.9, "high": torch.full((FEATURES,), 0.1)}, "a box is empty"),
        ({"norm": "linf", "low": -torch.inf}, "no finite bound"),
        ({"norm": "l2", "eps": 1.0, "low": torch.zeros(FEATURES)}, "boxes are of L-inf"),
        ({"norm": "l2"}, "a finite radius"),
    ],
)
def test_what_no_threat_can_be_is_one_line(rows, threat, said):
    with pytest.raises(RepulseError, match=said):
        ATTACKS["pgd"](linear(), *rows, ThreatPerImage(**threat))
