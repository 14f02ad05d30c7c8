"""Certificates by the command line: train, certify, attack, report."""

import pytest
import torch

from repulse.certification import margins_method
from repulse.certification.record import load_certificate
from repulse.cli import main

QUICK = ["--images", "10", "--progress", "quiet", "--radii", "0,0.02,36/255"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An L-inf-distance network too small to be any good."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    flags = ["--fit.epochs", "1", "--model.width", "0.05", "--fit.accelerator", "cpu", "--data.train-images", "100"]
    network = ["--model.backbone", "linf-dist", "--model.readout", "linf", "--prototypes.method", "one-hot"]
    assert main(["train", "--output", str(folder), "--name", "ours", "--progress", "quiet", *flags, *network]) == 0
    return folder


@pytest.fixture
def light(monkeypatch):
    from repulse.attacks import APGD, OBJECTIVES, Ensemble, Member

    apgd = Ensemble((Member("apgd", "APGD, margin", APGD(OBJECTIVES["margin"], steps=5)),))
    monkeypatch.setattr("repulse.certification.soundness._ensemble", lambda *_, **__: apgd)


def test_auto_says_what_it_took_and_keeps_the_record_in_the_run(run, light, capsys):
    assert main(["certify", str(run), *QUICK, "--attack", "--ensemble", "quick"]) == 0
    printed = capsys.readouterr().out
    folder = run / "certificates" / "linf-distance"
    assert printed.startswith(f"record: {folder}\n\n")
    assert "| radius | certified | attacked | unknown between |" in printed
    record, outcomes = load_certificate(folder)
    assert (record.method, record.norm, record.model.name, record.data.count) == ("linf-distance", "linf", "ours", 10)
    assert [point.radius for point in record.points] == [0, 0.02, 36 / 255]
    assert record.sound is True
    assert torch.bincount(outcomes["label"]).tolist() == [1] * 10
    assert record.environment["command"] == (
        "repulse certify RUN --radii 0.0,0.02,0.1411764705882353 --attack --ensemble quick --images 10"
    )
    assert str(run) not in (folder / "certificate.json").read_text()


def test_smoothing_takes_any_run_and_a_report_shows_it(run, tmp_path, capsys):
    flags = ["--method", "smoothing", "--n", "50", "--n0", "10", "--sigma", "0.1", "--alpha", "0.01"]
    assert main(["certify", str(run), *QUICK, *flags]) == 0
    assert "Randomised smoothing with noise of standard deviation 0.1" in capsys.readouterr().out
    record, _ = load_certificate(run / "certificates" / "smoothing-0.1")
    assert (record.smoothing.n, record.smoothing.n0, record.smoothing.alpha) == (50, 10, 0.01)
    assert main(["report", str(run / "certificates" / "smoothing-0.1"), "--output", str(tmp_path / "r.html")]) == 0
    assert "digits, smoothing" in (tmp_path / "r.html").read_text()


def test_a_broken_certificate_ends_in_an_error(run, light, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        margins_method, "certified_radius", lambda z, *_, **__: torch.full((len(z),), 0.9, dtype=torch.float64)
    )
    folder = tmp_path / "broken"
    assert main(["certify", str(run), *QUICK, "--attack", "--output", str(folder)]) == 4
    captured = capsys.readouterr()
    assert "UNSOUND: attacks broke" in captured.out
    assert captured.err.startswith("repulse: error: unsound: attacks broke ")
    assert captured.err.count("\n") == 1
    assert load_certificate(folder)[0].soundness.broken


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name a run folder (repulse certify RUN), or a model from outside (--model), and not both"),
        (["RUN", "--sigma", "0.5"], "sigma means nothing without method smoothing"),
        (
            ["RUN", "--method", "magic"],
            "input should be 'auto', 'lipschitz', 'linf-distance' or 'smoothing', got 'magic'",
        ),
        (["RUN", "--method", "lipschitz"], "has no known Lipschitz bound"),
        (["RUN", "--alpha", "2"], "repulse certify: alpha: input should be less than 1, got '2'"),
    ],
)
def test_mistakes_are_one_line(run, capsys, flags, message):
    assert main(["certify", *(str(run) if flag == "RUN" else flag for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_the_preset_for_smoothing_trains_with_the_noise_that_certify_then_takes():
    from repulse.config.presets import preset

    config = preset("smoothed")
    assert (config.recipe.name, config.recipe.sigma, config.prototypes.method) == ("noise", 0.25, "simplex")
