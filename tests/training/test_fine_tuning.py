"""Fine-tuning: weights to begin with, layers that stay or learn slowly, and where metrics are sent."""

import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.models import make_backbone
from repulse.models.pretrained import begin_with, last_layer
from repulse.run_folder import load_run
from repulse.runs import train_run
from repulse.training.optimisers import SGD, make_optimiser, set_learning_rate

TINY = {
    "data": {"train_images": 100, "validation": 0.0},
    "model": {"width": 0.125},
    "fit": {"epochs": 1, "batch_size": 50, "accelerator": "cpu", "devices": "1"},
}


def config(changes=None):
    return merge(merge(RunConfig(), TINY, "test"), changes or {}, "test")


def backbone(dimension=10):
    return make_backbone("small-cnn", channels=1, dimension=dimension, width=0.125)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.net."])
def test_a_file_gives_all_but_a_last_layer_of_another_size(tmp_path, prefix, capsys):
    given, taken = backbone(7), backbone(10)
    save_file({prefix + name: value.clone() for name, value in given.state_dict().items()}, tmp_path / "w.safetensors")
    last = {id(parameter) for parameter in last_layer(taken).parameters()}
    before = {name: value.clone() for name, value in taken.named_parameters()}
    begin_with(taken, tmp_path / "w.safetensors", "small-cnn", 1, 10)
    for name, value in taken.named_parameters():
        expected = before[name] if id(value) in last else dict(given.named_parameters())[name]
        assert torch.equal(value, expected), name
    assert "begun anew" in capsys.readouterr().err


def test_other_networks_and_missing_weights_are_one_line(tmp_path):
    save_file({"weight": torch.ones(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(RepulseError, match="is of another network"):
        begin_with(backbone(), tmp_path / "other.safetensors", "small-cnn", 1, 10)
    with pytest.raises(RepulseError, match="comes without weights; give a file"):
        begin_with(backbone(), True, "small-cnn", 1, 10)
    with pytest.raises(RepulseError, match="no such file"):
        begin_with(backbone(), tmp_path / "absent.pt", "small-cnn", 1, 10)


def test_timms_own_weights_are_asked_for_once_and_not_when_the_run_is_read(tmp_path, monkeypatch):
    asked = []

    def create_model(name, *, pretrained, in_chans, num_classes):
        asked.append(pretrained)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, num_classes))
        if pretrained:
            nn.init.constant_(model[1].weight, 0.5)
        return model

    timm = types.ModuleType("timm")
    timm.create_model, timm.is_model = create_model, lambda name: True
    monkeypatch.setitem(sys.modules, "timm", timm)
    # Without a width of its own, and frozen, so that what it began with can be seen at the end.
    changes = {"model": {"backbone": "timm/tiny", "width": 1.0, "pretrained": True}}
    train_run(config(changes | {"fit": {"optimiser": {"backbone_factor": 0.0}}}), tmp_path)
    assert asked == [False, True]
    model, *_ = load_run(tmp_path)
    assert asked == [False, True, False]
    assert (model.backbone[1].weight == 0.5).all()


def test_what_is_frozen_stays_and_the_last_layer_learns(tmp_path):
    given = backbone()
    save_file({name: value.clone() for name, value in given.state_dict().items()}, tmp_path / "w.safetensors")
    changes = {"model": {"pretrained": str(tmp_path / "w.safetensors")}, "fit": {"optimiser": {"backbone_factor": 0.0}}}
    model = train_run(config(changes), tmp_path / "run")
    last = {id(parameter) for parameter in last_layer(model.backbone).parameters()}
    for name, value in model.backbone.named_parameters():
        same = torch.equal(value, dict(given.named_parameters())[name])
        assert same != (id(value) in last), name


def test_lower_layers_learn_at_their_share_of_the_rate():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2))
            self.extra = nn.Linear(2, 2)

    model = Model()
    optimiser = make_optimiser(model, SGD(backbone_factor=0.1, bias_factor=4.0))
    set_learning_rate(optimiser, 1.0)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    layers = model.backbone
    found = [rates[id(p)] for p in (layers[0].weight, layers[1].bias, layers[2].weight, model.extra.weight)]
    assert found == pytest.approx([0.1, 0.4, 1.0, 1.0])
    assert len(rates) == len(list(model.parameters()))


def test_weights_and_biases_hears_of_every_epoch_when_asked(tmp_path, monkeypatch):
    told, begun = [], []
    fake = types.ModuleType("wandb")

    def init(**how):
        begun.append(how)
        return types.SimpleNamespace(log=lambda metrics, step: told.append((step, metrics)))

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train_run(config(), tmp_path / "silent")
    assert not begun
    train_run(config({"fit": {"wandb": "mine"}}), tmp_path / "run")
    train_run(config({"fit": {"wandb": "mine", "epochs": 2}}), tmp_path / "run", resume=True)
    assert [step for step, _ in told] == [1, 2]
    assert told[0][1]["train_accuracy"] >= 0
    assert begun[0]["project"] == "mine"
    assert begun[0]["id"] == begun[1]["id"]


def test_without_weights_and_biases_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RepulseError, match=r"pip install 'repulse\[wandb\]'"):
        train_run(config({"fit": {"wandb": "mine"}}), tmp_path)


def test_flags_tell_true_from_a_file(tmp_path):
    assert config({"model": {"pretrained": "true"}}).model.pretrained is True
    assert config({"model": {"pretrained": "net.pt"}}).model.pretrained == Path("net.pt")
