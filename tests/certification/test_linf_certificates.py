import itertools
from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from repulse.attacks import APGD, OBJECTIVES, PGD, Threat
from repulse.certification.linf_bound import linf_bound
from repulse.certification.radii import certified_radius
from repulse.common.errors import RepulseError
from repulse.data import load_data
from repulse.models import PrototypeClassifier
from repulse.models.linf_distance import LinfDistanceNet
from repulse.models.readouts import READOUTS
from repulse.prototypes import make_prototypes
from repulse.training import LOSSES, fit, make_fabric
from repulse.training.settings import FitSettings

linf_radius = partial(certified_radius, norm="linf")
POINTS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])


def test_the_radius_is_half_the_difference_of_the_two_smallest_distances():
    z = torch.tensor([[0.5, 0.25], [0.5, -0.25]])
    # Distances of the first: 0.75, 1.25, 1.5; of the second: 1.25, 0.75, 1.5.
    radius = linf_radius(z, POINTS, torch.tensor([0, 1]), readout="linf", lipschitz=1.0)
    torch.testing.assert_close(radius, torch.tensor([0.25, 0.25], dtype=torch.float64), rtol=0, atol=1e-5)
    assert (radius < 0.25).all()


def test_a_label_that_is_not_the_answer_or_is_one_of_two_has_radius_zero():
    z = torch.tensor([[0.5, 0.25], [1.0, 0.0]])
    assert linf_radius(z, POINTS, torch.tensor([1, 0]), readout="linf", lipschitz=1.0).tolist() == [0, 0]


def test_logits_of_one_hot_prototypes_have_half_their_margin():
    z = torch.tensor([[3.0, 1.0, 0.5, -8.0]])
    radius = linf_radius(z, torch.eye(4), torch.tensor([0]), readout="linear", lipschitz=1.0)
    assert radius.item() == pytest.approx(1.0, abs=1e-4)
    assert radius.item() < 1


def test_one_hot_prototypes_far_out_are_logits():
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    labels = z.argmax(1)
    by_logits = linf_radius(z, torch.eye(6), labels, readout="linear", lipschitz=1.0)
    by_distance = linf_radius(z, 10 * torch.eye(6), labels, readout="linf", lipschitz=1.0)
    torch.testing.assert_close(by_logits, by_distance, rtol=0, atol=1e-4)


def test_the_lipschitz_constant_divides_and_the_error_is_taken_off_twice():
    z = torch.tensor([[0.5, 0.25]])
    plain = linf_radius(z, POINTS, torch.tensor([0]), readout="linf", lipschitz=1.0).item()
    spoilt = linf_radius(z, POINTS, torch.tensor([0]), readout="linf", lipschitz=4.0, error=0.01).item()
    assert spoilt == pytest.approx((plain - 0.02) / 4)
    assert linf_radius(z, POINTS, torch.tensor([0]), readout="linf", lipschitz=1.0, error=0.2).item() == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), readout=st.sampled_from(["linf", "linear"]))
def test_no_embedding_within_the_radius_has_another_answer(seed, readout):
    """All corners of the box around each embedding; for products, just outside some corner has another answer."""
    generator = torch.Generator().manual_seed(seed)
    z, points = torch.randn(8, 4, generator=generator), torch.randn(5, 4, generator=generator)
    answers = READOUTS[readout]().logits(z, points).argmax(1)
    radius = linf_radius(z, points, answers, readout=readout, lipschitz=1.0)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))

    def kept(factor):
        moved = z.unsqueeze(1) + factor * radius.float().view(-1, 1, 1) * corners
        return (
            READOUTS[readout]().logits(moved.flatten(0, 1), points).argmax(1).view(8, -1) == answers.unsqueeze(1)
        ).all(1)

    assert kept(1.0).all()
    assert kept(0.7).all()
    if readout == "linear":
        assert not kept(1.01)[radius > 0.01].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "cosine"}, "no L-inf radius for readout 'cosine'; known: linear, linf"),
        ({"lipschitz": 0.0}, "the Lipschitz constant must be positive and finite, got 0.0"),
        ({"error": -1.0}, "the error of an embedding cannot be negative, got -1.0"),
    ],
)
def test_impossible_certificates_are_refused(options, message):
    options = {"readout": "linf", "lipschitz": 1.0, **options}
    with pytest.raises(RepulseError, match=f"^{message}$"):
        linf_radius(torch.zeros(1, 2), POINTS, torch.tensor([0]), **options)


@pytest.fixture(scope="module", params=["one-hot", "hadamard"])
def trained(request):
    """A small network trained on digits, with test images, labels and certified radii."""
    splits = load_data("digits")
    prototypes = make_prototypes(request.param, 10, {"one-hot": 10, "hadamard": 16}[request.param])
    torch.manual_seed(0)
    backbone = LinfDistanceNet(1, prototypes.d, 32, depth=2, grid=8)
    model = PrototypeClassifier(backbone, prototypes, "linf", temperature=0.05, mean=(0.3,), std=(0.5,))
    chosen = FitSettings(
        epochs=6,
        batch_size=64,
        accelerator="cpu",
        devices="1",
        channels_last=False,
        optimiser={"name": "adamw", "learning_rate": 0.02, "weight_decay": 0.0},
        schedule={"name": "cosine", "peak": 0.0, "end": 0.0},
    )
    fabric = make_fabric(chosen)
    fabric.launch()
    fit(model, LOSSES["linf-margin"](radius=0.4), splits.train, None, chosen, fabric=fabric)
    x = splits.test.fetch(torch.arange(150)).float() / 255
    y = torch.as_tensor(splits.test.labels)[:150]
    bound = linf_bound(model, tuple(x.shape[1:]))
    with torch.inference_mode():
        z = model.embed(x)
    radius = linf_radius(z, model.prototypes, y, readout="linf", lipschitz=bound.constant, error=bound.rounding).clone()
    return model, x, y, radius


def test_a_trained_network_certifies_something(trained):
    _, _, _, radius = trained
    assert (radius > 0.05).double().mean() > 0.25


def test_nothing_is_found_within_the_certified_radii(trained):
    model, x, y, radius = trained
    for eps in (0.02, 0.05, 0.1):
        certified = radius >= eps
        for attack in (PGD(OBJECTIVES["margin"], steps=20), APGD(OBJECTIVES["cross-entropy"], steps=20)):
            found = attack(model, x[certified], y[certified], Threat("linf", eps))
            with torch.inference_mode():
                assert (model(found.adversarial).argmax(1) == y[certified]).all(), (attack, eps)


def test_no_random_change_of_the_certified_size_has_another_answer(trained):
    model, x, y, radius = trained
    generator = torch.Generator().manual_seed(0)
    own = radius.float().view(-1, 1, 1, 1)
    for _ in range(30):
        signs = torch.rand(x.shape, generator=generator).sub(0.5).sign()
        with torch.inference_mode():
            answers = model((x + own * signs).clamp(0, 1)).argmax(1)
        assert ((answers == y) | (radius == 0)).all()


def test_beyond_the_radii_attacks_succeed(trained):
    """Else the attacks above would show nothing."""
    model, x, y, radius = trained
    right = radius > 0
    found = APGD(OBJECTIVES["margin"], steps=20)(model, x[right], y[right], Threat("linf", 0.4))
    with torch.inference_mode():
        assert (model(found.adversarial).argmax(1) != y[right]).double().mean() > 0.3
