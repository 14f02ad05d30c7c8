"""Objectives on distances to prototypes, and cross-entropy at a scale of its own."""

import itertools

import pytest
import torch
from known import images, linear, radius
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat, nearest_wrong, rescaled_cross_entropy
from repulse.common.errors import RepulseError
from repulse.models import READOUTS, PrototypeClassifier

# What attacks climb for each readout, against the textbook's distance; the squared norm that all share is left out.
METRICS = {"cosine": "cosine", "l2": "l2", "linf": "linf", "dot": "dot", "linear": "dot", "code": "dot"}


class Embedding(nn.Module):
    """The simplest model with prototypes: the embedding is the input."""

    def __init__(self, prototypes, readout="linear"):
        super().__init__()
        self.register_buffer("prototypes", prototypes)
        self.readout = READOUTS[readout]()

    def embed(self, x):
        return x.flatten(1)

    def distances(self, z):
        return self.readout.distances(z, self.prototypes)

    def classify(self, z):
        return z @ self.prototypes.T

    def forward(self, x):
        return self.classify(self.embed(x))


def distance(metric, z, p):
    """The textbook's, one pair at a time."""
    return {
        "cosine": lambda: 1 - (z @ p) / (z.norm() * p.norm()),
        "l2": lambda: ((z - p) ** 2).sum(),
        "linf": lambda: (z - p).abs().max(),
        "dot": lambda: -(z * p).sum(),
    }[metric]()


@pytest.mark.parametrize("readout", METRICS)
@pytest.mark.parametrize("classes", [2, 5])
def test_the_value_is_the_own_distance_minus_the_nearest_wrong_one(readout, classes):
    generator = torch.Generator().manual_seed(0)
    model = Embedding(torch.randn(classes, 6, generator=generator, dtype=torch.float64), readout)
    x = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (20,), generator=generator)
    values, logits = OBJECTIVES["prototype-distance"](model, x, y)
    for z, label, value in zip(x, y.tolist(), values, strict=True):
        all_of_them = [distance(METRICS[readout], z, p) for p in model.prototypes]
        nearest = min(all_of_them[j] for j in range(classes) if j != label)
        torch.testing.assert_close(value, all_of_them[label] - nearest)
    assert torch.equal(logits, model(x))


@pytest.mark.parametrize("readout", ["cosine", "l2", "linf", "dot", "linear"])
def test_positive_means_fooled_under_the_readout(readout):
    generator = torch.Generator().manual_seed(1)
    model = PrototypeClassifier(nn.Flatten(), torch.randn(4, 12, generator=generator), readout).eval()
    x = torch.rand(60, 3, 2, 2, generator=generator)
    y = torch.randint(4, (60,), generator=generator)
    values, logits = nearest_wrong(model, x, y)
    assert torch.equal(values > 0, logits.argmax(1) != y)
    assert 0 < (values > 0).sum() < 60


@pytest.mark.parametrize("readout", METRICS)
def test_its_gradient_is_that_of_finite_differences(readout):
    generator = torch.Generator().manual_seed(2)
    model = Embedding(torch.randn(3, 5, generator=generator, dtype=torch.float64), readout)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.randint(3, (8,), generator=generator)
    assert torch.autograd.gradcheck(lambda x: nearest_wrong(model, x, y)[0], x)


def test_on_an_embedding_it_fools_where_saturated_logits_hide_the_gradient():
    """A temperature so small that float32 cross-entropy is exactly zero, and so is its gradient."""
    generator = torch.Generator().manual_seed(3)
    model = PrototypeClassifier(nn.Flatten(), torch.randn(3, 16, generator=generator), "cosine", temperature=1e-5)
    x = torch.rand(40, 1, 4, 4, generator=generator)
    y = model.eval()(x).argmax(1)
    threat = Threat("linf", 0.4)
    assert not PGD(OBJECTIVES["cross-entropy"])(model, x, y, threat).fooled[:].float().mean() > 0.2
    for name in ("prototype-distance", "cross-entropy-rescaled"):
        assert PGD(OBJECTIVES[name])(model, x, y, threat).fooled.float().mean() > 0.9


def test_a_model_without_prototypes_is_refused():
    model = linear()
    x, y = images(model, count=2)
    with pytest.raises(RepulseError, match="`embed`, `distances` and `classify`, which it lacks"):
        PGD(OBJECTIVES["prototype-distance"])(model, x, y, Threat("linf", 0.1))


def test_a_label_without_prototype_is_refused():
    model = Embedding(torch.eye(3))
    with pytest.raises(RepulseError, match="the model has 3 prototypes, but there is a label 3"):
        nearest_wrong(model, torch.rand(1, 3), torch.tensor([3]))


def scaled(model, factor, shift=0.0):
    twin = linear(len(model[1].bias))
    with torch.no_grad():
        twin[1].weight.copy_(factor * model[1].weight)
        twin[1].bias.copy_(factor * model[1].bias + shift)
    return twin


def gradient(model, x, y):
    x = x.clone().requires_grad_()
    values, _ = rescaled_cross_entropy(model, x, y)
    (slope,) = torch.autograd.grad(values.sum(), x)
    return nn.functional.normalize(slope.flatten(1).double(), dim=1)


@pytest.mark.parametrize("factor", [1e4, 1e-6])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_rescaled_cross_entropy_does_not_see_the_scale_of_the_logits(factor, classes):
    model = linear(classes)
    x, y = images(model)
    twin = scaled(model, factor)
    torch.testing.assert_close(gradient(twin, x, y), gradient(model, x, y), atol=1e-4, rtol=0)
    for norm in ("linf", "l2"):
        threat = Threat(norm, 1.01 * radius(model, x, y, norm).median().item())
        one, other = (PGD(rescaled_cross_entropy)(m, x, y, threat) for m in (model, twin))
        assert torch.equal(one.fooled, other.fooled)
        assert 0 < one.fooled.sum() < len(x)
        assert torch.equal(one.prediction, other.prediction)


def test_plain_cross_entropy_does_see_it():
    model = linear(3)
    x, y = images(model)
    threat = Threat("linf", 0.03)
    one, other = (PGD(OBJECTIVES["cross-entropy"])(m, x, y, threat).fooled.sum() for m in (model, scaled(model, 1e4)))
    assert other < 0.5 * one


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_equal_logits_give_finite_values_and_gradients(classes):
    """Every pattern of ties."""
    rows = torch.tensor(list(itertools.product((0.0, 1.0), repeat=classes)), requires_grad=True)
    for label in range(classes):
        values, _ = rescaled_cross_entropy(nn.Identity(), rows, torch.full((len(rows),), label))
        (slope,) = torch.autograd.grad(values.sum(), rows)
        assert values.isfinite().all()
        assert slope.isfinite().all()
        # Never flat where another class could still win: the own logit always counts.
        assert (slope[:, label] < -1e-3).all()
