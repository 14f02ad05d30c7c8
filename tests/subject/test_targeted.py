"""Fooled into one class only: exact on linear models, and never more than fooled into any."""

import pytest
import torch
from torch import nn

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.evaluation import About, evaluate
from repulse.subject import Subject
from repulse.subject.targeted import Towards, towards

NAMES = ("bird", "cat", "dog")
QUICK = {"attacks": "quick", "steps": (5,), "curve": (), "gallery": 0}


def linear():
    torch.manual_seed(0)
    layer = nn.Linear(16, 3)
    with torch.no_grad():
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture
def data():
    x = 0.35 + 0.3 * torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, linear()(x).argmax(1)


def reachable(x, y, target, eps):
    """Whether the target can overtake every other class at once: a linear programme."""
    from scipy.optimize import linprog

    weight, bias = (part.detach().double().numpy() for part in linear()[1].parameters())
    found = []
    for image in x.flatten(1).double().numpy():
        others = [each for each in range(3) if each != target]
        # Largest t with (w_target - w_other) . x + b >= t for all others, x in the box.
        rows = [[*(weight[other] - weight[target]), 1.0] for other in others]
        room = [bias[target] - bias[other] for other in others]
        bounds = [(max(pixel - eps, 0), min(pixel + eps, 1)) for pixel in image]
        best = linprog([0.0] * 16 + [-1.0], A_ub=rows, b_ub=room, bounds=[*bounds, (None, None)])
        found.append(-best.fun > 0)
    return torch.tensor(found)


def test_on_a_linear_model_the_figure_is_exact(data):
    x, y = data
    eps = 0.03
    record = evaluate(linear(), x, y, eps=eps, target="dog", about=About(class_names=NAMES), **QUICK).record
    kept = y != 2
    truth = reachable(x[kept], y[kept], 2, eps)
    assert 0 < truth.double().mean() < 1
    assert record.data.count == int(kept.sum())
    assert record.natural_accuracy == 1
    assert record.worst_case_accuracy == pytest.approx(1 - truth.double().mean().item())
    assert record.data.class_names == ("any other class", "dog")
    assert "fooled where it names dog" in record.model.description
    assert "guessing" not in record.verdict.caution


def test_the_target_is_named_exactly_where_the_model_names_it(data):
    x, _ = data
    for target in range(3):
        assert torch.equal(Towards(linear(), target)(x).argmax(1) == 1, linear()(x).argmax(1) == target)


def test_other_classes_and_images_are_one_line(data):
    x, y = data
    subject = Subject(linear(), x, y, About(class_names=NAMES))
    with pytest.raises(RepulseError, match="did you mean 'dog'"):
        towards(subject, "dgo")
    with pytest.raises(RepulseError, match="unknown class '3'"):
        towards(subject, 3)
    with pytest.raises(RepulseError, match="all images are of class bird"):
        towards(Subject(linear(), x, torch.zeros_like(y), About(class_names=NAMES)), "bird")
    with pytest.raises(RepulseError, match="there is no class 7"):
        evaluate(linear(), x, y, eps=0.1, target=7, **QUICK)


def test_the_command_hands_it_on(monkeypatch, capsys):
    seen = []

    def stop(subject, *_, **__):
        seen.append(subject)
        raise RepulseError("enough")

    monkeypatch.setattr("repulse.cli.evaluate.evaluate_subject", stop)
    assert main(["evaluate", "zoo:digits-softmax", "--images", "30", "--target", "3", "--progress", "quiet"]) == 2
    (subject,) = seen
    assert subject.about.class_names == ("any other class", "3")
    assert len(subject.images) == 27
    assert not subject.labels.any()
    assert "towards-3" in subject.prefix
