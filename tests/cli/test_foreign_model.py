"""A newcomer's model from outside the project gets its verdict with one command."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from repulse.cli import main
from repulse.data import load_data
from repulse.evaluation import load_evaluation

CODE = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
QUICK = ["--steps", "5", "--curve", "0,0.05", "--curve-steps", "3", "--progress", "quiet"]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with a file of code and a file of weights: a linear model of digits, fitted in closed form."""
    train = load_data("digits").train
    x = train.fetch(torch.arange(len(train))).float().flatten(1) / 255
    wanted = torch.nn.functional.one_hot(train.labels, 10).float() - 0.1
    with_bias = torch.cat((x, torch.ones(len(x), 1)), 1).double()
    solved = torch.linalg.lstsq(
        with_bias.T @ with_bias + torch.eye(65).double(), with_bias.T @ wanted.double()
    ).solution
    (tmp_path / "net.py").write_text(CODE)
    save_file(
        {"1.weight": solved[:64].T.float().contiguous(), "1.bias": solved[64].float()}, tmp_path / "w.safetensors"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_one_command_gives_a_verdict(outside, capsys):
    arguments = ["--weights", "w.safetensors", "--data", "digits", "--eps", "0.1", "--images", "60", *QUICK]
    assert main(["evaluate", "--model", "net.py:make", *arguments]) == 0
    out = capsys.readouterr().out
    record, outcomes = load_evaluation(outside / "evaluations" / "net.py-make-linf-0.1")
    assert f"How sure: **{record.verdict.word}**" in out
    assert "record: evaluations/net.py-make-linf-0.1" in out
    assert record.natural_accuracy > 0.8
    assert record.verdict.quote == record.worst_case_accuracy == outcomes["robust/worst-case"].double().mean().item()
    assert {attack.group for attack in record.attacks} == {"paper", "logits", "adaptive", "standard"}
    assert record.environment["command"].startswith("repulse evaluate --model MODEL --data FOLDER --eps 0.1")
    assert main(["report", "evaluations/net.py-make-linf-0.1", "--output", "report.html"]) == 0
    assert record.verdict.word in (outside / "report.html").read_text()


def test_quick_attacks_have_a_group_of_their_own_in_record_and_report(outside, capsys):
    arguments = ["--weights", "w.safetensors", "--data", "digits", "--eps", "0.05", "--images", "40", *QUICK]
    assert main(["evaluate", "--model", "net.py:make", *arguments, "--attacks", "quick", "--output", "found"]) == 0
    assert "quick, as AutoAttack with small budgets" in capsys.readouterr().out
    record, _ = load_evaluation(outside / "found")
    assert [attack.label for attack in record.attacks if attack.group == "quick"] == [
        "APGD, margin",
        "APGD, margin, nearest classes",
        "Near misses: APGD, polishing",
        "Square",
    ]
    assert "--attacks quick" in record.environment["command"]
    assert main(["report", "found", "--output", "report.html"]) == 0
    assert "quick, as AutoAttack with small budgets" in (outside / "report.html").read_text()


def test_a_claim_is_judged(outside, capsys):
    arguments = ["--weights", "w.safetensors", "--data", "digits", "--eps", "0.1", "--images", "60", *QUICK]
    assert main(["evaluate", "--model", "net.py:make", *arguments, "--attacks", "paper", "--claimed", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "How sure: **claim overstated**" in out
    assert "The claim says 90.0 %" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a run folder (repulse evaluate RUN), or a model from outside (--model), and not both"),
        (
            ["runs/x", "--model", "a:b"],
            "name a run folder (repulse evaluate RUN), or a model from outside (--model), and not both",
        ),
        (["--model", "net.py:make"], "a model from outside needs images: name them by --data FOLDER_OR_ID"),
        (["runs/x", "--data", "digits"], "--data means nothing with a run folder; it knows its own"),
        (["--model", "a:b", "--source", "x"], "--source means nothing with --model; use --data and --weights"),
        (["--model", "nowhere.net:make", "--data", "digits"], "no module named 'nowhere'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(outside, capsys, arguments, message):
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("repulse: error: ")
    assert len(error.splitlines()) == 1
    assert message in error
