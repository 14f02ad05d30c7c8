"""Configurations: presets are whole, files of older versions are read."""

from pathlib import Path

import pytest
import yaml

from repulse.common.errors import RepulseError
from repulse.common.settings import merge, read_yaml, to_yaml
from repulse.config.presets import PRESETS, preset
from repulse.config.run import RunConfig
from repulse.training import LOSSES, RECIPES

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_configuration_that_can_be_written_and_read(name):
    config = preset(name)
    assert merge(RunConfig(), yaml.safe_load(to_yaml(config)), name) == config


def test_every_configuration_that_was_ever_kept_is_read_and_means_what_it_says():
    files = sorted(RESULTS.rglob("config.yaml"))
    assert len(files) > 100
    for file in files:
        kept = read_yaml(file)
        config = merge(RunConfig(), kept, str(file)).model_dump(mode="json")
        for group in ("loss", "recipe"):
            for key, value in kept.get(group, {}).items():
                # What does not belong to the loss or recipe was left open, or is what it would be anyway.
                if value is not None and (key, value) != ("label_smoothing", 0.0):
                    assert config[group][key] == value, (file, group, key)


def test_label_smoothing_of_zero_is_no_smoothing_for_any_loss():
    """As files say that were written before losses had settings of their own."""
    assert merge(RunConfig(), {"loss": {"name": "linf", "label_smoothing": 0.0}}, "old").loss == LOSSES["linf"]()
    with pytest.raises(RepulseError, match=r"^new: loss 'linf' has no setting 'label_smoothing'"):
        merge(RunConfig(), {"loss": {"name": "linf", "label_smoothing": 0.1}}, "new")


@pytest.mark.parametrize("group", ["loss", "recipe"])
def test_every_kind_is_written_and_read_with_all_its_settings(group):
    for name in {"loss": LOSSES, "recipe": RECIPES}[group]:
        config = merge(RunConfig(), {group: name}, "test")
        assert getattr(config, group).name == name
        assert merge(RunConfig(), yaml.safe_load(to_yaml(config)), "test") == config
