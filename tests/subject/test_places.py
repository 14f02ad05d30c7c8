"""Results are never overwritten by another measurement, and the same command finds its own."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate, load_evaluation
from repulse.evaluation.settings import PAPER_GRID

QUICK = ["--data", "digits", "--attacks", "paper", "--steps", "2", "--curve", "0.05", "--curve-steps", "2"]
CODE = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def loaded():
    from safetensors.torch import load_file

    model = make()
    model.load_state_dict(load_file("a.safetensors"))
    return model

def scaled():
    return nn.Sequential(Grey(), nn.Flatten(), nn.Linear(64, 10))

class Grey(nn.Module):
    def forward(self, x):
        return x / 255
"""


@pytest.fixture(scope="module")
def weights():
    """A linear model of digits, fitted in closed form."""
    from repulse.data import load_data

    train = load_data("digits").train
    x = train.fetch(torch.arange(len(train))).float().flatten(1) / 255
    x = torch.cat((x, torch.ones(len(x), 1)), 1).double()
    wanted = nn.functional.one_hot(train.labels, 10).double() - 0.1
    solved = torch.linalg.solve(x.T @ x + torch.eye(65), x.T @ wanted).float()
    return solved[:64].T.contiguous(), solved[64].contiguous()


@pytest.fixture
def place(tmp_path, monkeypatch, weights):
    weight, bias = weights
    (tmp_path / "net.py").write_text(CODE)
    save_file({"1.weight": weight, "1.bias": bias}, tmp_path / "a.safetensors")
    save_file({"1.weight": weight + 0.5 * torch.randn(10, 64), "1.bias": bias}, tmp_path / "b.safetensors")
    save_file({"2.weight": weight, "2.bias": bias}, tmp_path / "scaled.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run(weights, *flags, factory="make"):
    model = ["--model", f"net.py:{factory}", "--weights", f"{weights}.safetensors", "--progress", "quiet"]
    return main(["evaluate", *model, *QUICK, "--eps", "0.1", "--images", "40", *flags])


def records(place):
    return {path.parent.name: path.stat().st_mtime_ns for path in place.rglob("record.json")}


def test_other_weights_images_and_attacks_get_folders_of_their_own_and_the_same_command_finds_its_own(place, capsys):
    assert run("a") == 0
    first = records(place)
    assert list(first) == ["net.py-make-linf-0.1"]
    assert run("b") == 0
    assert run("a", "--images", "20") == 0
    assert run("a", "--steps", "3") == 0
    every = records(place)
    assert len(every) == 4
    assert every["net.py-make-linf-0.1"] == first["net.py-make-linf-0.1"]
    counts = {load_evaluation(place / "evaluations" / name)[0].data.count for name in every}
    assert counts == {20, 40}
    capsys.readouterr()
    for weights, flags in (("a", ()), ("b", ()), ("a", ("--images", "20"))):
        assert run(weights, *flags) == 0
    assert records(place) == every
    assert "record: evaluations/net.py-make-linf-0.1-paper-20-" in capsys.readouterr().out


def test_a_folder_that_was_named_is_not_overwritten_either(place, capsys):
    assert run("a", "--output", "kept") == 0
    before = records(place)
    assert run("b", "--output", "kept") == 2
    error = capsys.readouterr().err
    assert "kept holds another measurement (the weights, the model's answers differ), which is not overwritten" in error
    assert records(place) == before


def test_misuse_is_said_first_and_stops_unless_wanted_anyway(place, capsys):
    """Images from 0 to 255 were meant: nothing is attacked, nothing is left behind, and the flags are named."""
    assert run("scaled", factory="scaled") == 2
    error = capsys.readouterr().err
    assert "so nothing was attacked (--anyway goes on all the same)" in error
    assert "`--std 0.00392157`" in error
    assert not (place / "evaluations").exists()
    assert run("scaled", "--anyway", factory="scaled") == 0
    assert "`--std 0.00392157`" in capsys.readouterr().err
    assert len(records(place)) == 1


def test_a_failed_start_leaves_no_folder(tmp_path):
    class Few(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 4
    with pytest.raises(RepulseError, match="outputs"):
        evaluate(Few(), x, y, EvaluationSettings(), folder=tmp_path / "deep" / "here")
    assert not (tmp_path / "deep").exists()


def test_bars_have_an_exit_code_of_their_own(place, capsys):
    assert run("a", "--fail-under", "0.99") == 3
    assert "less than the bar of 99.0 %" in capsys.readouterr().err
    assert run("a", "--fail-under", "0") == 0
    assert run("a", "--fail-on", "upper-bound,overstated", "--output", "elsewhere") == 3
    assert "on which this was to fail" in capsys.readouterr().err
    assert run("a", "--eps", "nonsense") == 2


def test_weights_that_nobody_named_are_said_aloud(place, capsys):
    model = ["--model", "net.py:make", "--progress", "quiet", "--anyway"]
    assert main(["evaluate", *model, *QUICK, "--eps", "0.1", "--images", "20"]) == 0
    said = capsys.readouterr().err
    assert "no --weights: net.py:make is measured with the weights that its code makes, and these are random" in said
    assert "Give --weights FILE" in said
    model[1] = "net.py:loaded"
    assert main(["evaluate", *model, *QUICK, "--eps", "0.1", "--images", "20"]) == 0
    assert "so it seems to load trained ones itself" in capsys.readouterr().err


def test_the_curve_reaches_beyond_eps():
    assert EvaluationSettings().radii == PAPER_GRID
    for norm, eps in (("l2", 0.5), ("l2", 3.0), ("linf", 0.3)):
        radii = EvaluationSettings(norm=norm, eps=eps).radii
        assert radii[0] == 0
        assert eps in radii
        assert radii[-1] > 2 * eps
    assert EvaluationSettings(curve=()).radii == ()
