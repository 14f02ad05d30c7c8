"""Few images: more epochs, a word about too few steps and about chance; and a run that is extended."""

import pytest

from repulse.cli import main
from repulse.common import notice
from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.config.run import RunConfig, read_config
from repulse.runs import train_run
from repulse.training import read_metrics

TINY = {
    "data": {"train_images": 100, "validation": 0.0},
    "model": {"width": 0.125},
    "fit": {"epochs": 2, "batch_size": 50, "accelerator": "cpu", "devices": "1"},
}


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(notice, "_said", set())


def config(**fit):
    return merge(merge(RunConfig(), TINY, "test"), {"fit": fit}, "test")


def test_a_run_is_extended_by_more_epochs_and_never_shortened(tmp_path):
    train_run(config(), tmp_path)
    before = read_metrics(tmp_path)
    train_run(config(epochs=4), tmp_path, resume=True)
    after = read_metrics(tmp_path)
    assert [row.epoch for row in after] == [1, 2, 3, 4]
    assert after[:2] == before
    assert read_config(tmp_path).fit.epochs == 4
    with pytest.raises(RepulseError, match="for 3 epochs, for 4 are done; give no fewer"):
        train_run(config(epochs=3), tmp_path, resume=True)
    with pytest.raises(RepulseError, match=r"with other settings \(fit\.batch_size\)"):
        train_run(config(epochs=5, batch_size=25), tmp_path, resume=True)


def test_the_command_line_extends_a_run_with_its_own_settings(tmp_path, capsys):
    train_run(config(), tmp_path)
    assert main(["train", "--output", str(tmp_path), "--resume", "--fit.epochs", "3", "--progress", "quiet"]) == 0
    assert [row.epoch for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_epochs_follow_from_the_least_steps_and_a_run_so_made_resumes(tmp_path, capsys):
    """100 images in batches of 50 make 2 steps, so 7 steps take 4 epochs."""
    train_run(config(least_steps=7), tmp_path)
    assert len(read_metrics(tmp_path)) == 4
    assert read_config(tmp_path).fit.epochs == 4
    assert "4 epochs in place of 2, for 100 images make 2 steps (fit.least_steps)" in capsys.readouterr().err
    train_run(config(least_steps=7), tmp_path, resume=True)
    assert len(read_metrics(tmp_path)) == 4


def test_too_few_steps_and_an_accuracy_near_chance_are_said(tmp_path, capsys):
    flags = ["--data.train-images", "100", "--fit.batch-size", "50", "--fit.epochs", "1", "--model.width", "0.125"]
    slow = ["--fit.optimiser.learning-rate", "0.000001", "--fit.accelerator", "cpu", "--progress", "quiet"]
    assert main(["train", "--preset", "softmax", "--output", str(tmp_path / "a"), *flags, *slow]) == 0
    said = capsys.readouterr().err
    assert "1 epochs of 100 images are 2 steps, which is little: `--preset small`" in said
    assert "natural accuracy is near chance, 1 in 10" in said


def test_a_network_that_has_learnt_is_left_alone(tmp_path, capsys):
    flags = ["--fit.epochs", "2", "--fit.batch-size", "32", "--model.width", "0.25", "--fit.accelerator", "cpu"]
    assert main(["train", "--preset", "softmax", "--output", str(tmp_path / "a"), *flags, "--progress", "quiet"]) == 0
    assert "chance" not in capsys.readouterr().err


def test_the_preset_for_few_images_takes_steps_enough_and_begins_plainly():
    small = preset("small")
    assert small.fit.least_steps >= 1000
    assert small.augment.flip == "random"
    assert small.augment.crop_padding > 0
    assert 0 < small.recipe.delay < small.recipe.delay + small.recipe.warmup < 1
