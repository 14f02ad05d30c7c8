"""A newcomer's model from outside the project gets a certificate with one command."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from repulse.attacks import APGD, OBJECTIVES, Ensemble, Member
from repulse.certification import smoothing_method
from repulse.certification.record import load_certificate
from repulse.cli import main
from repulse.data import load_data

# What is called `plane` knows two classes of ten, divided by one plane: smoothed or not, radii are distances to it.
CODE = """
import torch
from torch import nn
from repulse import PrototypeClassifier


class Plane(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(64, 1)

    def forward(self, x):
        score = self.score(x.flatten(1))
        return torch.cat((torch.zeros_like(score), score, torch.full((len(x), 8), -1e3)), 1)


def plane():
    return Plane()


def means():
    return PrototypeClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False)), torch.zeros(10, 64), "l2")


def greys():
    return nn.Sequential(Scaled(), means())


def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def large():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Scaled(nn.Module):
    def forward(self, x):
        return x / 255


class Batch(nn.Module):
    def forward(self, x):
        return x - x.mean(0) + 0.3


def together():
    return nn.Sequential(Batch(), means())
"""
SIGMA, N, ALPHA = 0.5, 400, 0.001
SMOOTH = ["--data", "digits", "--images", "60", "--sigma", "0.5", "--n", "400", "--n0", "40", "--progress", "quiet"]


@pytest.fixture(scope="module")
def digits():
    """Training images and labels, flat."""
    train = load_data("digits").train
    return train.fetch(torch.arange(len(train))).float().flatten(1) / 255, train.labels


@pytest.fixture
def outside(tmp_path, monkeypatch, digits):
    """A folder with a file of code and files of weights, all fitted in closed form; it is the current one."""
    x, y = digits
    averages = torch.stack([x[y == label].mean(0) for label in range(10)])
    normal = averages[1] - averages[0]
    offset = -normal @ (averages[0] + averages[1]) / 2
    (tmp_path / "net.py").write_text(CODE)
    save_file(
        {"score.weight": normal[None].clone(), "score.bias": offset[None].clone()}, tmp_path / "plane.safetensors"
    )
    state = {
        "backbone.1.weight": torch.eye(64),
        "prototypes": averages,
        "mean": torch.zeros(1, 1, 1, 1),
        "std": torch.ones(1, 1, 1, 1),
    }
    save_file(state, tmp_path / "means.safetensors")
    save_file({f"1.{name}": value for name, value in state.items()}, tmp_path / "second.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def light(monkeypatch):
    apgd = Ensemble((Member("apgd", "APGD, margin", APGD(OBJECTIVES["margin"], steps=5)),))
    monkeypatch.setattr("repulse.certification.soundness._ensemble", lambda *_, **__: apgd)


def measured(outcomes, images):
    """The test images, by their labels those of the certification."""
    from repulse.data import subset

    test = load_data("digits").test
    some = subset(test, images, 0)
    assert torch.equal(some.labels.int(), outcomes["label"])
    return some.fetch(torch.arange(images)).double() / 255


def certify_plane(*flags):
    return main(["certify", "--model", "net.py:plane", "--weights", "plane.safetensors", *SMOOTH, *flags])


def test_a_linear_model_gets_the_radii_of_the_closed_form(outside, digits, capsys):
    """Under noise of deviation sigma a plane at distance d keeps the class with probability Phi(d / sigma)."""
    assert certify_plane() == 0
    out = capsys.readouterr().out
    assert "Randomised smoothing with noise of standard deviation 0.5" in out
    assert out.startswith("record: certificates/net.py-plane-smoothing-0.5\n\n")
    record, outcomes = load_certificate(outside / "certificates" / "net.py-plane-smoothing-0.5")
    assert (record.method, record.norm, record.model.name, record.data.name) == ("smoothing", "l2", "plane", "digits")
    assert record.model.description == "net.py:plane, weights plane.safetensors"
    assert record.environment["command"] == (
        "repulse certify --model MODEL --data FOLDER --sigma 0.5 --n 400 --n0 40 --images 60"
    )

    x, y = digits
    one, nought = x[y == 1].mean(0).double(), x[y == 0].mean(0).double()
    flat = measured(outcomes, 60).flatten(1)
    signed = (flat - (one + nought) / 2) @ (one - nought) / (one - nought).norm()
    label = outcomes["label"]
    distance = torch.where(label == 1, signed, -signed)
    known = label <= 1
    assert known.sum() == 12
    assert (outcomes["radius"][~known] == 0).all()
    for row in known.nonzero().flatten().tolist():
        truth, radius = float(distance[row]), float(outcomes["radius"][row])
        assert 0.2 < truth < 2.5, "or there is nothing to see"
        share = stats.norm.cdf(truth / SIGMA)
        fewest = int(N * share - 4 * (N * share * (1 - share)) ** 0.5)
        lower = stats.beta.ppf(ALPHA, fewest, N - fewest + 1)
        assert max(0, SIGMA * stats.norm.ppf(lower)) <= radius <= min(truth, SIGMA * stats.norm.ppf(ALPHA ** (1 / N)))
    assert float(outcomes["radius"].max()) > 0.7


def test_a_certification_that_was_interrupted_goes_on_where_it_was(outside, monkeypatch, capsys):
    honest, batches = smoothing_method.smooth, []

    def interrupted(*given, **how):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(given[1]))
        return honest(*given, **how)

    monkeypatch.setattr(smoothing_method, "smooth", interrupted)
    assert certify_plane("--output", "kept") == 130
    assert "interrupted: what was finished is kept" in capsys.readouterr().err
    assert not (outside / "kept" / "certificate.json").exists()
    again = []
    monkeypatch.setattr(
        smoothing_method, "smooth", lambda *given, **how: again.append(len(given[1])) or honest(*given, **how)
    )
    # The method that `auto` found, by its name.
    assert certify_plane("--output", "kept", "--method", "smoothing") == 0
    assert (batches, again) == ([10, 10], [10, 10, 10, 10])
    assert not (outside / "kept" / "progress").exists()
    monkeypatch.setattr(smoothing_method, "smooth", honest)
    assert certify_plane("--output", "at-once") == 0
    kept, at_once = (load_certificate(outside / name) for name in ("kept", "at-once"))
    assert all(torch.equal(kept[1][name], value) for name, value in at_once[1].items())
    assert kept[0].points == at_once[0].points


def test_a_model_that_was_built_to_prove_something_is_certified_as_it_is(outside, digits, light, capsys):
    """The nearest mean, in pixels: its radius is the distance to the nearest plane between two means."""
    flags = ["--data", "digits", "--images", "30", "--radii", "0,0.2,0.5", "--attack", "--progress", "quiet"]
    assert main(["certify", "--model", "net.py:means", "--weights", "means.safetensors", *flags]) == 0
    assert capsys.readouterr().out.startswith("record: certificates/net.py-means-lipschitz\n\n")
    record, outcomes = load_certificate(outside / "certificates" / "net.py-means-lipschitz")
    assert (record.method, record.sound) == ("lipschitz", True)
    assert record.natural_accuracy > 0.7
    x, y = digits
    means = torch.stack([x[y == label].mean(0) for label in range(10)]).double()
    away = torch.cdist(measured(outcomes, 30).flatten(1), means).square()
    own = outcomes["label"].long()
    gaps = (away - away.gather(1, own[:, None])) / (2 * torch.cdist(means, means)[own])
    truth = gaps.scatter(1, own[:, None], torch.inf).amin(1).clamp_min(0)
    assert (outcomes["radius"] <= truth).all()
    # The rest was taken off for rounding.
    torch.testing.assert_close(outcomes["radius"], truth, atol=5e-4, rtol=0)
    assert main(["report", "certificates", "--output", "report.html"]) == 0
    assert "means" in (outside / "report.html").read_text()


MEANS = ["--model", "net.py:means", "--weights", "means.safetensors", "--data", "digits", "--progress", "quiet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run folder (repulse certify RUN), or a model from outside (--model), and not both"),
        (
            ["runs/x", "--model", "a:b"],
            "name a run folder (repulse certify RUN), or a model from outside (--model), and not both",
        ),
        (["--model", "net.py:plane"], "a model from outside needs images: name them by --data FOLDER_OR_ID"),
        (["runs/x", "--data", "digits"], "--data means nothing with a run folder; it knows its own"),
        (["runs/x", "--image-column", "img"], "--image-column means nothing with a run folder; it knows its own"),
        (["--model", "a:b", "--source", "x"], "--source means nothing with --model; use --data and --weights"),
        (
            ["--model", "a:b", "--checkpoint", "best"],
            "--checkpoint means nothing with --model; use --data and --weights",
        ),
        (
            ["--data", "digits", "--model", "net.py:plans"],
            "net.py has no 'plans'; did you mean 'plane' or 'means' or 'Plane'?",
        ),
        (
            ["--data", "digits", "--model", "net.py:plane", "--method", "lipschitz"],
            "a Plane has no embedding and no prototypes to measure a margin between",
        ),
        ([*MEANS, "--sigma", "0.5"], "sigma means nothing without method smoothing"),
        ([*MEANS, "--method", "smoothing", "--draws", "5"], "draws means nothing without attack"),
        (
            ["--data", "digits", "--model", "net.py:few"],
            "the model gives 5 outputs, but the data has 10 classes; give the model that was made for this data",
        ),
        (
            ["--data", "digits", "--model", "net.py:large"],
            "the model does not take images of shape (2, 1, 8, 8): mat1 and mat2 shapes cannot be multiplied (2x64 and "
            "784x10)",
        ),
        (
            ["--data", "digits", "--model", "net.py:greys", "--weights", "second.safetensors"],
            "the model is not used as it was meant to be, so nothing was proved (--anyway goes on all the same). The "
            "model is right on 10.5 % of the images as they are, but on 92.6 % when they are from 0 to 255: use "
            "`--std 0.00392157`.",
        ),
        (
            ["--data", "digits", "--model", "net.py:together", "--weights", "second.safetensors"],
            "no figure for single images exists. Normalise with running statistics, not with those of the batch.",
        ),
    ],
)
def test_mistakes_are_one_line(outside, capsys, arguments, message):
    assert main(["certify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("repulse: error: ")
    assert error.endswith(f"{message}\n")
    assert error.count("\n") == 1
    assert not (outside / "certificates").exists()


def test_a_normalisation_is_put_into_the_model(outside, digits):
    """The same plane, for a model that wants its images centred and stretched: the same radii in pixels."""
    from safetensors.torch import load_file

    plain = load_file("plane.safetensors")
    weight, bias = plain["score.weight"], plain["score.bias"]
    save_file({"score.weight": weight * 0.25, "score.bias": bias + 0.3 * weight.sum()}, "centred.safetensors")
    assert certify_plane("--images", "20", "--output", "plain") == 0
    flags = ["--images", "20", "--mean", "0.3", "--std", "0.25", "--weights", "centred.safetensors"]
    assert certify_plane(*flags, "--output", "centred") == 0
    radii = [load_certificate(outside / name)[1]["radius"] for name in ("plain", "centred")]
    assert float(radii[0].max()) > 0
    torch.testing.assert_close(*radii, atol=1e-3, rtol=0)
