import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from repulse.attacks import APGD, OBJECTIVES, Threat
from repulse.certification.embedding_error import embedding_error
from repulse.certification.lipschitz_bound import lipschitz_bound
from repulse.certification.radii import certified_radius
from repulse.common.errors import RepulseError
from repulse.common.fixed_weights import frozen
from repulse.models import READOUTS, PrototypeClassifier
from repulse.models.lipschitz import LipschitzCNN
from repulse.models.margins import plane_margins
from repulse.models.readouts import margin_of
from repulse.prototypes import make_prototypes
from repulse.training import LOSSES

PLANAR = ["linear", "dot", "cosine", "l2"]
l2_radius = partial(certified_radius, norm="l2")


def drawn(seed, n=5, d=3, count=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=generator, dtype=torch.float64), torch.randn(
        n, d, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("readout", PLANAR)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 9999), lipschitz=st.sampled_from([0.5, 1.0, 3.0]))
def test_no_embedding_within_reach_of_the_radius_is_another_class(readout, seed, lipschitz):
    z, points = drawn(seed)
    read = READOUTS[readout]().logits
    labels = read(z, points).argmax(1)
    reach = lipschitz * l2_radius(z, points, labels, readout=readout, lipschitz=lipschitz)
    directions = torch.randn(100, *z.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = directions / directions.norm(dim=2, keepdim=True)
    moved = z + reach.unsqueeze(1) * directions
    answers = torch.stack([read(each, points).argmax(1) for each in moved])
    assert (answers == labels).all()


@pytest.mark.parametrize("readout", PLANAR)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 9999))
def test_just_beyond_the_radius_there_is_another_class(readout, seed):
    """The radius is the distance to the nearest plane, not only a bound of it."""
    z, points = drawn(seed)
    read = READOUTS[readout]().logits
    labels = read(z, points).argmax(1)
    units = torch.nn.functional.normalize(points, dim=1) if readout == "cosine" else points
    nearest = margin_of(readout, "l2").distances(z, points, labels).argmin(1)
    radius = l2_radius(z, points, labels, readout=readout, lipschitz=1.0)
    towards = torch.nn.functional.normalize(units[nearest] - units[labels], dim=1)
    beyond = z + (radius + 1e-3).unsqueeze(1) * towards
    assert (read(beyond, points).argmax(1) != labels).all()


def test_the_radius_is_that_of_the_formula():
    z, points = torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    # The planes: x = 0 at distance 0.5, and halfway to (0, 3).
    other = ((0.5**2 + 3**2) - 0.5**2) / (2 * math.sqrt(10))
    margins = plane_margins(z, points, torch.tensor([0]))
    torch.testing.assert_close(margins, torch.tensor([[torch.inf, 0.5, other]]))
    radius = l2_radius(z, points, torch.tensor([0]), readout="l2", lipschitz=2.0, error=0.05)
    assert float(radius) == pytest.approx((0.5 - 0.1) / 2, abs=1e-5)
    assert float(radius) < 0.2


def test_another_label_than_the_nearest_has_no_radius():
    z, points = drawn(0)
    logits = READOUTS["l2"]().logits(z, points)
    second = logits.topk(2, dim=1).indices[:, 1]
    assert l2_radius(z, points, second, readout="l2", lipschitz=1.0).tolist() == [0.0] * len(z)


def test_an_embedding_that_is_not_a_number_has_no_radius():
    z = torch.tensor([[torch.nan, 0.0]])
    assert l2_radius(z, torch.eye(2), torch.tensor([0]), readout="l2", lipschitz=1.0).tolist() == [0.0]


@pytest.mark.parametrize("readout", ["linear", "l2", "cosine"])
def test_the_rounding_of_a_readout_is_within_what_is_taken_off(readout):
    """Margins from logits in single precision, against the exact ones, and the allowance between them."""
    z, points = drawn(3, n=10, d=30, count=200)
    z, points = 5 * z.float(), points.float()
    labels = READOUTS[readout]().logits(z, points).argmax(1)
    exact = margin_of(readout, "l2").distances(z.double(), points.double(), labels)
    allowed = exact.amin(1) - l2_radius(z, points, labels, readout=readout, lipschitz=1.0)
    units = torch.nn.functional.normalize(points.double(), dim=1) if readout == "cosine" else points.double()
    apart = (units[labels].unsqueeze(1) - units).norm(dim=2)
    logits = READOUTS[readout]().logits(z, points).double()
    scale = {"linear": 1.0, "l2": 0.5, "cosine": z.double().norm(dim=1, keepdim=True)}[readout]
    rounded = scale * (logits.gather(1, labels.unsqueeze(1)) - logits) / apart
    nearest = exact.argmin(1, keepdim=True)
    off = (rounded.gather(1, nearest) - exact.gather(1, nearest)).abs().squeeze(1)
    assert (off <= allowed).all()
    assert (allowed < 1e-2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "linf"}, "no L2 radius for readout 'linf'; known: cosine, dot, l2, linear"),
        ({"lipschitz": 0.0}, "the Lipschitz constant must be positive and finite, got 0.0"),
        ({"lipschitz": math.inf}, "the Lipschitz constant must be positive and finite, got inf"),
        ({"error": -0.1}, "the error of an embedding cannot be negative, got -0.1"),
    ],
)
def test_impossible_certificates_are_refused(options, message):
    z, points = drawn(0)
    with pytest.raises(RepulseError, match=f"^{message}$"):
        l2_radius(z, points, torch.zeros(8).long(), **{"readout": "l2", "lipschitz": 1.0} | options)


def test_a_linear_model_has_the_radius_of_the_closed_form():
    """With orthonormal rows the bound is tight, and the radius is the margin over the norm of the difference."""
    torch.manual_seed(0)
    dense = nn.Linear(16, 4)
    nn.init.orthogonal_(dense.weight)
    model = PrototypeClassifier(nn.Sequential(nn.Flatten(), dense), torch.eye(4), "linear", std=(0.5,)).eval()
    x = torch.rand(30, 1, 4, 4)
    with torch.no_grad():
        logits = model(x)
        labels = logits.argmax(1)
        found = l2_radius(
            model.embed(x), model.prototypes, labels, readout="linear",
            lipschitz=lipschitz_bound(model, (1, 4, 4)).constant,
        )  # fmt: skip
        weight = dense.weight / 0.5
        norms = (weight[labels].unsqueeze(1) - weight).norm(dim=2)
        margins = (logits.gather(1, labels.unsqueeze(1)) - logits) / norms
    expected = margins.scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def trained():
    """A small 1-Lipschitz network trained on digits, and 60 test images with their radii."""
    data = load_digits()
    x, y = torch.tensor(data.images).float().unsqueeze(1) / 16, torch.tensor(data.target).long()
    torch.manual_seed(0)
    backbone = LipschitzCNN(1, 10, width=8, depth=1)
    model = PrototypeClassifier(backbone, make_prototypes("simplex", 10, 10), "l2", mean=(0.3,))
    loss = LOSSES["certified-cross-entropy"](offset=0.5)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    for _ in range(6):
        for rows in torch.randperm(1400).split(100):
            values = loss.per_example(model.embed(x[rows]), y[rows], model)
            optimiser.zero_grad()
            values.mean().backward()
            optimiser.step()
    model.eval()
    bound = lipschitz_bound(model, (1, 8, 8))
    bound.verify()
    x, y = x[1400:1460], y[1400:1460]
    with torch.no_grad():
        z = model.embed(x)
    error = embedding_error(model, x)
    return frozen(model), x, y, z, bound, error


def certified(trained, constant=None):
    model, _, y, z, bound, error = trained
    return l2_radius(z, model.prototypes, y, readout="l2", lipschitz=constant or bound.constant, error=error)


def test_training_reaches_radii_worth_having(trained):
    radius = certified(trained)
    assert float((radius > 0).float().mean()) > 0.8
    assert float((radius > 0.3).float().mean()) > 0.5


def test_a_strong_attack_finds_nothing_inside_the_radius_and_something_outside(trained):
    model, x, y, *_ = trained
    radius = certified(trained)
    attack = APGD(OBJECTIVES["margin"], steps=30, restarts=2)
    order = radius.argsort()
    order = order[radius[order] > 0]
    # Groups of like radius, each attacked at the smallest radius in it.
    for rows in order.chunk(4):
        eps = float(radius[rows].min())
        assert not bool(attack(model, x[rows], y[rows], Threat("l2", eps), seed=0).fooled.any())
    beyond = attack(model, x[order], y[order], Threat("l2", 4 * float(radius.max())), seed=0)
    assert beyond.fooled.all()


def test_dense_sampling_inside_the_radius_finds_nothing(trained):
    model, x, y, *_ = trained
    radius = certified(trained)
    rows = (radius > 0).nonzero().squeeze(1)[:10]
    noise = torch.randn(300, len(rows), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = noise / noise.flatten(2).norm(dim=2).reshape(300, -1, 1, 1, 1)
    moved = x[rows] + radius[rows].float().reshape(-1, 1, 1, 1) * noise
    with torch.no_grad():
        answers = model(moved.flatten(0, 1)).argmax(1).reshape(300, -1)
    assert (answers == y[rows]).all()


def test_a_scaled_layer_shrinks_the_certificate(trained):
    model = trained[0]
    faulty = frozen(model)
    with torch.no_grad():
        faulty.backbone[4].weight.mul_(1.05)
    verified = lipschitz_bound(faulty, (1, 8, 8))
    ratio = certified(trained, verified.constant) / certified(trained)
    torch.testing.assert_close(ratio[ratio > 0], torch.full_like(ratio[ratio > 0], 1 / 1.05), atol=1e-5, rtol=0)
    with pytest.raises(RepulseError, match=r"^layer backbone.4 \(Conv2d\) has spectral norm 1.05"):
        verified.verify()


def test_the_error_of_an_embedding_is_small_and_measured(trained):
    model, x, _, z, _, error = trained
    assert 0 < error < 1e-4
    exact = frozen(model).double().embed(x.double())
    assert error == pytest.approx(4 * float((z.double() - exact).detach().norm(dim=1).max()), rel=0.5)
