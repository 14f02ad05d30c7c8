"""Stopping early: counted by hand, the same after an interruption."""

import pytest

from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.runs import train_run
from repulse.training import RECIPES, read_metrics
from repulse.training.patience import Patience
from repulse.training.settings import FitSettings


def stops_after(accuracies, patience, recipe=None, epochs=100):
    counter = Patience(FitSettings(patience=patience, epochs=epochs), recipe, (), True)
    for epoch, accuracy in enumerate(accuracies):
        if counter.is_over:
            return epoch
        counter.after_epoch(accuracy)
    return None


@pytest.mark.parametrize(
    ("accuracies", "patience", "epoch"),
    [
        ([0.1, 0.2, 0.2, 0.2, 0.2], 2, 4),
        ([0.3, 0.2, 0.2, 0.4, 0.1, 0.1, 0.1], 3, None),
        ([0.3, 0.2, 0.2, 0.4, 0.1, 0.1, 0.1, 0.1], 3, 7),
        ([0.1] * 50, None, None),
    ],
)
def test_epochs_are_counted_since_the_best(accuracies, patience, epoch):
    assert stops_after(accuracies, patience) == epoch


def test_delay_and_warm_up_of_a_recipe_do_not_count():
    recipe = RECIPES.make({"name": "n-fgsm", "delay": 0.3, "warmup": 0.3})
    falling = [0.9 - 0.1 * epoch for epoch in range(6)] + [0.3, 0.2, 0.2, 0.2]
    assert stops_after(falling, 2, recipe, epochs=10) == 9


def test_without_validation_images_patience_is_refused():
    with pytest.raises(RepulseError, match=r"fit\.patience needs validation images"):
        Patience(FitSettings(patience=1), None, (), False)


def test_training_stops_when_nothing_has_got_better_and_stays_stopped(tmp_path, capsys):
    changes = {
        "data": {"train_images": 100, "validation": 0.2},
        "model": {"width": 0.125},
        "fit": {
            "epochs": 9,
            "patience": 2,
            "batch_size": 50,
            "accelerator": "cpu",
            "devices": "1",
            "optimiser": {"learning_rate": 1e-9},
        },
    }
    config = merge(RunConfig(), changes, "test")
    train_run(config, tmp_path)
    rows = read_metrics(tmp_path)
    best = max(range(len(rows)), key=lambda place: rows[place].validation_accuracy)
    assert len(rows) == best + 1 + 2 < 9
    assert f"best at epoch {best + 1}" in " ".join(capsys.readouterr().err.split())
    train_run(config, tmp_path, resume=True)
    assert read_metrics(tmp_path) == rows
