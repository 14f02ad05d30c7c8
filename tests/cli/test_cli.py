import importlib

import pytest
import yaml

from repulse.cli import main

COMMANDS = [
    "certify",
    "demo",
    "evaluate",
    "export",
    "predict",
    "prototypes",
    "push",
    "report",
    "reproduce",
    "train",
    "zoo",
]


def error(capsys, *argv):
    """The one line that a wrong command prints; its exit code must be 2."""
    assert main(list(argv)) == 2
    text = capsys.readouterr().err
    assert text.startswith("repulse: error: ")
    assert text.count("\n") == 1
    return text.removeprefix("repulse: error: ").rstrip("\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  repulse {command}" in text.split("Examples:")[1]


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:")[1]
    assert [line.split()[0] for line in listed.strip().splitlines()] == sorted(COMMANDS)


def test_the_version_is_the_packages(capsys):
    from repulse.version import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"repulse, version {__version__}\n"


def test_no_command_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tran"], "No such command 'tran'. Did you mean 'train'?; see repulse --help"),
        (["train", "--outptu", "x"], "No such option '--outptu'. Did you mean '--output'?; see repulse train --help"),
        (["train"], "repulse train: output is required; give it as --output or in the YAML file"),
        (
            ["train", "--output", "x", "--fit.epochs", "0"],
            "repulse train: fit.epochs: input should be greater than or equal to 1, got '0'",
        ),
        (
            ["train", "--output", "x", "--fit.optimiser.name", "sdg"],
            "repulse train: unknown optimiser 'sdg'; did you mean 'sgd'? known: adamw, sgd",
        ),
        (["report"], "name at least one run folder: repulse report RUN"),
        (["prototypes"], "give the number of classes (--classes 10), or a file of prototypes (--file PATH)"),
        (
            ["train", "--output", "x", "--config", "none.yaml"],
            "cannot read the configuration none.yaml: No such file or directory",
        ),
        (["prototypes", "--file", "none.safetensors"], "no such file: none.safetensors"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert error(capsys, *argv) == message


def test_a_misspelt_preset_and_readout_suggest_the_nearest(capsys, tmp_path):
    assert error(capsys, "train", "--output", str(tmp_path), "--preset", "papr").startswith(
        "unknown preset 'papr'; did you mean 'paper'?"
    )
    assert error(capsys, "train", "--output", str(tmp_path / "a"), "--model.readout", "cosin").startswith(
        "unknown readout 'cosin'; did you mean 'cosine'?"
    )
    assert not (tmp_path / "a" / "config.yaml").exists()


def test_an_unknown_yaml_key_suggests_the_nearest(capsys, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"fit": {"optimiser": {"learning_rat": 0.1}}}))
    message = error(capsys, "train", "--output", "x", "--config", str(file))
    assert message.startswith(f"{file}: optimiser 'sgd' has no setting 'learning_rat'; did you mean 'learning_rate'?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: [1", "{file}, line 1 is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("- a\n- b\n", "{file} must hold keys and values, got list"),
        ("fit: \x16", "{file} is not YAML: unacceptable character #x0016: special characters are not allowed"),
        ("loss: {name: [1], label_smoothing: 0}", "{file}: unknown loss '[1]'; known: "),
        (
            "fit: {epochs: many}",
            "{file}: fit.epochs: input should be a valid integer, unable to parse string as an integer, got 'many'",
        ),
    ],
)
def test_a_wrong_yaml_file_is_named(text, message, capsys, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    said = error(capsys, "train", "--output", "x", "--config", str(file))
    assert "\n" not in said
    assert said.startswith(message.format(file=file)) if message.endswith(" ") else said == message.format(file=file)


def test_layers_lie_over_each_other(tmp_path):
    """Preset, then file, then flags."""
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"fit": {"epochs": 1, "batch_size": 99}, "data": {"train_images": 200}}))
    run = tmp_path / "run"
    argv = ["train", "--preset", "paper", "--config", str(file), "--fit.batch-size", "64", "--output", str(run)]
    assert main([*argv, "--prototypes.steps", "5", "--progress", "quiet", "--fit.accelerator", "cpu"]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["readout"] == "dot"
    assert (config["fit"]["epochs"], config["fit"]["batch_size"]) == (1, 64)
    assert config["prototypes"] == {
        "method": "repulsive-linf",
        "dimension": 100,
        "seed": None,
        "steps": 5,
        "scale": 1.0,
        "file": None,
    }


def test_flags_change_the_recipe_and_the_loss_of_a_preset(tmp_path):
    under = _settings_of("--preset", "pgd-at", "--recipe.eps", "0.1", "--loss.label-smoothing", "0.2")
    assert (under.recipe.name, under.recipe.eps, under.recipe.steps) == ("pgd", 0.1, 10)
    assert under.loss.label_smoothing == 0.2
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: {steps: 3}\n", encoding="utf-8")
    both = _settings_of("--preset", "pgd-at", "--config", str(file), "--recipe.eps", "0.1")
    assert (both.recipe.name, both.recipe.eps, both.recipe.steps) == ("pgd", 0.1, 3)


def _settings_of(*flags):
    from repulse.cli.train import command

    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(command, "call", seen.append)
        assert command.main(["--output", "nowhere", *flags], standalone_mode=False) is None
    return seen[0]


def test_every_field_has_a_description():
    from repulse.cli import options

    for name in COMMANDS:
        module = importlib.import_module(f"repulse.cli.{name}")
        settings = next(each for key, each in vars(module).items() if key.lower() == f"{name}command")
        for flag in options.flatten(settings):
            assert flag.help[:1].strip(), flag.dotted


def test_prototypes_are_made_measured_and_written(tmp_path, capsys):
    file = tmp_path / "p.safetensors"
    assert main(["prototypes", "--classes", "5", "--dimension", "8", "--method", "simplex", "--output", str(file)]) == 0
    made = capsys.readouterr().out
    assert "104.4775" in made  # arccos(-1/4)
    assert main(["prototypes", "--file", str(file)]) == 0
    assert "104.4775" in capsys.readouterr().out


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, repulse, repulse.cli.group; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
