"""A loss of a third party: one file, one registration line; then YAML, flags, help, and errors know it."""

import pytest
import yaml

from repulse.cli import main
from repulse.common.plugins import load_plugins
from repulse.training import LOSSES

PLUGIN = '''
from pydantic import Field
from repulse.training.loss import LOSSES, Loss

@LOSSES.register("{name}")
class Scaled(Loss):
    """A multiple of the L1 distance."""

    weight: float = Field(1.0, gt=0, description="Factor on the distance, for which no other loss has a word.")

    def per_example(self, z, y, head):
        return self.weight * (z - head.prototypes[y]).abs().sum(1)
'''

SMALL = ["--data.train-images", "100", "--fit.epochs", "1", "--fit.batch-size", "50", "--model.width", "0.125"]


@pytest.fixture
def plugin(tmp_path, monkeypatch, request):
    monkeypatch.setenv("REPULSE_PLUGINS", "")
    name = f"l1-{abs(hash(request.node.name)):x}"
    file = tmp_path / "scaled.py"
    file.write_text(PLUGIN.format(name=name))
    yield file, name
    # What a plugin registers must not be seen by other tests.
    LOSSES._entries.pop(name, None)


def test_a_loss_of_ones_own_is_set_by_flags_and_yaml_and_shown_in_the_help(plugin, tmp_path, capsys):
    file, name = plugin
    assert main(["train", "--plugin", str(file), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"--loss.weight NUMBER Factor on the distance, for which no other loss has a word. For {name}. [1]" in shown

    by_flags = tmp_path / "by-flags"
    flags = ["--loss", name, "--loss.weight", "0.25", "--fit.accelerator", "cpu", "--progress", "quiet"]
    assert main(["train", f"--plugin={file}", "--output", str(by_flags), *SMALL, *flags]) == 0
    assert yaml.safe_load((by_flags / "config.yaml").read_text())["loss"] == {"name": name, "weight": 0.25}

    settings = tmp_path / "a.yaml"
    settings.write_text(yaml.safe_dump({"loss": {"name": name, "weight": -1}}))
    assert main(["train", "--output", "x", "--config", str(settings)]) == 2
    assert f"{settings}: loss {name!r}: weight: input should be greater than 0, got -1" in capsys.readouterr().err


def test_plugins_of_the_environment_are_loaded_once(plugin, monkeypatch):
    file, name = plugin
    monkeypatch.setenv("REPULSE_PLUGINS", str(file))
    load_plugins()
    load_plugins()
    assert LOSSES[name](weight=2).weight == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "FileNotFoundError: no such file"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("a b", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPULSE_PLUGINS", "")
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(text)
    assert main(["train", "--plugin", str(file), "--output", "x"]) == 2
    assert f"repulse: error: cannot load the plugin {file}: {message}" in capsys.readouterr().err
