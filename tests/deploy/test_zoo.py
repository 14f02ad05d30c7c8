"""The checkpoints that come with the package are whole, and measure what their table says."""

import json
import shutil

import pytest
import torch

from repulse import load_run
from repulse.attacks import Threat, ensemble
from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.data import load_data
from repulse.deploy import Classifier
from repulse.deploy.card import evaluations
from repulse.places import zoo as zoo_module
from repulse.places.zoo import zoo, zoo_folder
from repulse.run_folder import load_splits, read_test_accuracy

NAMES = sorted(zoo())


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_is_whole_small_and_loads(name):
    folder = zoo_folder(name)
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == set(zoo()[name].files)
    assert sum((folder / file).stat().st_size for file in files) <= 5_000_000
    model, _, classes = load_run(f"zoo:{name}")
    assert model(torch.rand(2, *classes.image_shape)).shape == (2, len(classes.names))


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    shutil.copytree(zoo_module.PLACE, tmp_path / "zoo")
    monkeypatch.setattr(zoo_module, "PLACE", tmp_path / "zoo")
    zoo_folder("digits-softmax")
    (tmp_path / "zoo" / "digits-softmax" / "classes.json").write_text("{}")
    with pytest.raises(RepulseError, match=r"^zoo:digits-softmax is damaged: classes.json is not the file"):
        Classifier.load("zoo:digits-softmax")


def test_the_table_lists_every_checkpoint(capsys):
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2 + len(NAMES)
    for name in NAMES:
        assert f"| {name} " in printed
    assert "not measured" not in printed


def test_a_checkpoint_is_evaluated_like_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--images", "20", "--attacks", "paper", "--steps", "2", "--eps", "0.1", "--progress", "quiet"]
    assert main(["evaluate", "zoo:digits-softmax", *flags]) == 0
    record = tmp_path / "evaluations" / "zoo-digits-softmax-linf-0.1" / "record.json"
    assert json.loads(record.read_text())["model"]["name"] == "digits-softmax"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("digits")])
def test_the_row_of_the_table_is_measured_again(name):
    """Natural accuracy to the image, and robust accuracy to what a hundred images can say."""
    folder = zoo_folder(name)
    model, config, _ = load_run(folder)
    test = load_splits(config).test
    again(name, model, test.fetch(torch.arange(len(test))).float() / 255, test.labels)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("digits")])
def test_the_row_of_the_table_is_measured_again_on_real_data(name, real_data):
    model, config, _ = load_run(f"zoo:{name}")
    test = load_data(str(real_data(config.data.source)), image_size=config.data.image_size).test
    again(name, model, test.fetch(torch.arange(len(test))).float() / 255, test.labels)


def again(name, model, x, y):
    natural, count = read_test_accuracy(zoo_folder(name))
    assert len(x) == count
    with torch.inference_mode():
        right = torch.cat([model(part).argmax(1) for part in x.split(500)]) == y
    # Another processor may round one image in a thousand to the other side.
    assert right.double().mean() == pytest.approx(natural, abs=0.001)
    (record, *_) = evaluations(zoo_folder(name))
    threat = Threat(record.norm, record.eps)
    some = torch.arange(len(x))[:100]
    # All of the quick attacks: PGD alone is led astray by the paper's loss, and leaves twice as many.
    fooled = ensemble("quick")(model.requires_grad_(False), x[some], y[some], threat).fooled
    standing = float((right[some] & ~fooled).double().mean())
    # A hundred of the images, against all of them: three standard deviations.
    assert standing == pytest.approx(record.worst_case_accuracy, abs=0.15)
