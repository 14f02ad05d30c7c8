"""The whole way by the command line: train, evaluate, report, demo."""

import json

import pytest
import torch

from repulse.cli import main
from repulse.evaluation import load_evaluation

QUICK = ["--steps", "2,5", "--curve", "0,0.05", "--curve-steps", "2", "--images", "40", "--progress", "quiet"]
QUICK += ["--attacks", "quick"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    flags = ["--fit.epochs", "4", "--fit.batch-size", "64", "--model.width", "0.5", "--fit.accelerator", "cpu"]
    assert main(["train", "--output", str(folder), "--name", "ours", "--progress", "quiet", *flags]) == 0
    return folder


def error(capsys, *argv):
    assert main(list(argv)) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text.removeprefix("repulse: error: ").rstrip("\n")


def test_training_is_robust_training_unless_something_else_is_asked_for(run):
    from repulse.config.run import read_config
    from repulse.training.recipes import NFGSM

    config = read_config(run)
    assert isinstance(config.recipe, NFGSM)
    assert config.recipe.model_dump() == {**NFGSM(eps=8 / 255).model_dump(), "name": "repulse"}
    assert (config.name, config.prototypes.method, config.loss.name) == ("ours", "simplex", "cross-entropy")


def test_evaluate_prints_a_table_and_keeps_a_record(run, capsys):
    assert main(["evaluate", str(run), "--eps", "25.5/255", *QUICK]) == 0
    printed = capsys.readouterr().out
    folder = run / "evaluations" / "linf-0.1"
    assert f"\nrecord: {folder}\n" in printed
    record, outcomes = load_evaluation(folder)
    assert f"**{100 * record.worst_case_accuracy:.1f} %**" in printed
    assert (record.model.name, record.data.name, record.data.count, record.eps) == ("ours", "digits", 40, 0.1)
    assert torch.bincount(outcomes["label"]).tolist() == [4] * 10
    assert record.environment["command"].startswith("repulse evaluate RUN --eps 0.1")
    assert str(run) not in (folder / "record.json").read_text()


def test_the_recorded_natural_accuracy_is_the_models_own(run):
    from repulse.data import load_data
    from repulse.run_folder import load_run

    assert main(["evaluate", str(run), "--eps", "0.02", *QUICK, "--images", "359", "--attacks", "paper"]) == 0
    record, _ = load_evaluation(run / "evaluations" / "linf-0.02")
    model, _, _ = load_run(run)
    test = load_data("digits").test
    with torch.inference_mode():
        right = (model(test.images / 255).argmax(1) == test.labels).double().mean().item()
    assert record.natural_accuracy == pytest.approx(right)
    assert json.loads((run / "test.json").read_text())["natural_accuracy"] == pytest.approx(right)


def test_a_report_has_the_records_figures(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--norm", "l2", "--eps", "0.5", *QUICK, "--attacks", "paper"]) == 0
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--output", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"report: {page}\n")
    record, _ = load_evaluation(run / "evaluations" / "l2-0.5")
    figure = f"{100 * record.worst_case_accuracy:.1f}"
    assert figure in page.read_text()
    assert figure in page.with_suffix(".md").read_text()
    json.loads(page.with_suffix(".json").read_text())


# Four trainings and as many measurements: a busy machine takes its time.
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_the_demo_ends_with_a_table_and_the_report(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--images", "20", "--progress", "quiet"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert f"report: {tmp_path / 'demo' / 'report.html'}" in lines
    assert "repulse evaluate --model" in lines[-1]
    rows = {row[1]: row for row in ([cell.strip() for cell in line.split("|")] for line in lines if line[:1] == "|")}
    assert {"undefended", "paper", "adversarial", "proved, L-inf-distance network"} <= set(rows)
    # The story holds: the paper's method is overstated, and the proof proves something.
    assert rows["paper"][5] == "**claim overstated**"
    assert float(rows["proved, L-inf-distance network"][2].strip("*").split()[0]) > 50
    assert (tmp_path / "demo" / "report.html").is_file()


def test_evaluating_what_is_no_run(tmp_path, capsys):
    assert error(capsys, "evaluate", str(tmp_path)) == (
        f"{tmp_path} is no run folder (it has no config.yaml); make one with `repulse train`"
    )
    assert error(capsys, "evaluate") == (
        "name a run folder (repulse evaluate RUN), or a model from outside (--model), and not both"
    )


def test_evaluating_on_other_data_is_refused(run, capsys, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(2):
                Image.new("L", (8, 8), k).save(tmp_path / split / name / f"{k}.png")
    message = error(capsys, "evaluate", str(run), "--source", str(tmp_path))
    assert message == "the run was trained on 10 classes, but this data has 2"


def test_a_checkpoint_that_is_damaged_is_named(run, capsys, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    weights = copy / "checkpoints" / "last.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert error(capsys, "evaluate", str(copy)).startswith(f"{weights} is not a whole safetensors file: ")
    weights.unlink()
    assert error(capsys, "evaluate", str(copy)) == f"run {copy} has no checkpoint 'last' (has the first epoch ended?)"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "8/0"], "repulse evaluate: eps: expected a number such as 8/255 or 0.1, got '8/0'"),
        (["--eps", "-1"], "repulse evaluate: eps: input should be greater than or equal to 0, got -1.0"),
        (["--norm", "l7"], "repulse evaluate: norm: input should be 'linf' or 'l2', got 'l7'"),
        (["--curve", "0,x"], "repulse evaluate: curve.1: expected a number such as 8/255 or 0.1, got 'x'"),
    ],
)
def test_wrong_settings_are_one_line(run, flags, message, capsys):
    assert error(capsys, "evaluate", str(run), *flags) == message
