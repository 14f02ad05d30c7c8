"""Checkpoints as people find them: the right weights are read out of each, and what is no checkpoint is named."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import repulse.common.notice as notices
from repulse.common.errors import RepulseError
from repulse.models.foreign.weights import load_weights


def small():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def filled(seed):
    torch.manual_seed(seed)
    model = small()
    for name, value in model.state_dict().items():
        if "num_batches" not in name:
            value.copy_(torch.rand(value.shape) + 0.1)
    return model.state_dict()


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture(autouse=True)
def _all_is_said(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


def loaded(content, folder, capsys, key=None, model=None):
    """The model with the weights of a saved file, and what was said."""
    path = folder / "checkpoint.pt"
    torch.save(content, path)
    model = small() if model is None else model
    load_weights(model, path, key)
    return model, capsys.readouterr().err


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


TRAINED = filled(1)
LAYOUTS = {
    "net.": prefixed("net.", TRAINED),
    "backbone.": {"state_dict": prefixed("backbone.", TRAINED)},
    "DeepSpeed": {"module": prefixed("_forward_module.", TRAINED)},
    "module. inside a name": {"state_dict": prefixed("encoder.module._orig_mod.", TRAINED)},
    "ema alone": {"ema": TRAINED, "epoch": 3},
    "params": {"params": TRAINED},
    "nested": {"checkpoint": {"trainer": {"weights": TRAINED}}},
    "a list of one": {"state_dict": [TRAINED], "arch": "resnet"},
    "NumPy arrays": {name: value.numpy() for name, value in TRAINED.items()},
    "NumPy scalars and arguments beside": {
        "model": TRAINED,
        "best": np.float64(0.93),
        "step": np.int64(7),
        "args": argparse.Namespace(lr=0.1, output=Path("runs")),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_in_every_common_layout(layout, tmp_path, capsys):
    model, _ = loaded(LAYOUTS[layout], tmp_path, capsys)
    assert same(model, TRAINED)


def test_an_averaged_model_and_lightning_extras_fit_and_what_was_ignored_is_said(tmp_path, capsys):
    inner = small()
    inner.load_state_dict(TRAINED)
    model, said = loaded(AveragedModel(inner).state_dict(), tmp_path, capsys)
    assert same(model, TRAINED)
    assert "1 entries are not the model's and were ignored: n_averaged" in said
    extras = {"criterion.weight": torch.ones(2), "ema.decay": torch.ones(1)}
    content = {"state_dict": {**prefixed("model.", TRAINED), **extras}}
    model, said = loaded(content, tmp_path, capsys)
    assert same(model, TRAINED)
    assert "2 entries are not the model's and were ignored: criterion.weight, ema.decay" in said


def test_madrys_layout_is_read(tmp_path, capsys):
    """github.com/MadryLab/robustness: the model twice, once inside its attacker, and two normalisers."""
    state = {
        **prefixed("module.model.", TRAINED),
        **prefixed("module.attacker.model.", TRAINED),
        "module.normalizer.new_mean": torch.ones(3, 1, 1),
        "module.attacker.normalize.new_std": torch.ones(3, 1, 1),
    }
    model, said = loaded({"model": state, "epoch": 5}, tmp_path, capsys)
    assert same(model, TRAINED)
    assert "sets of weights" not in said
    assert "2 entries are not the model's and were ignored: normalizer.new_mean, attacker.normalize.new_std" in said


@pytest.mark.parametrize(
    ("plain", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("params", "params_ema")]
)
def test_of_two_sets_the_average_is_taken_and_said_and_a_key_takes_the_other(plain, average, tmp_path, capsys):
    averaged = filled(2)
    content = {plain: TRAINED, average: averaged, "epoch": 9}
    model, said = loaded(content, tmp_path, capsys)
    assert same(model, averaged)
    assert f"holds 2 sets of weights that fit; taken: {average}; the others: `--weights-key {plain}`" in said
    model, said = loaded(content, tmp_path, capsys, key=plain)
    assert same(model, TRAINED)
    assert said == ""
    with pytest.raises(RepulseError, match=rf"^unknown set of weights 'modell'; .*known: {plain}, {average}$"):
        loaded(content, tmp_path, capsys, key="modell")


def test_two_sets_under_prefixes_of_one_mapping_are_told_apart(tmp_path, capsys):
    averaged = filled(2)
    content = {"state_dict": {**prefixed("net.", TRAINED), **prefixed("net_ema.", averaged)}}
    model, said = loaded(content, tmp_path, capsys)
    assert same(model, averaged)
    assert "taken: state_dict.net_ema; the others: `--weights-key state_dict.net`" in said
    assert same(loaded(content, tmp_path, capsys, key="state_dict.net")[0], TRAINED)


def test_weights_of_what_a_model_wraps_fit_it(tmp_path, capsys):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

    model, _ = loaded(TRAINED, tmp_path, capsys, model=Wrapped())
    assert same(model.inner, TRAINED)


def test_weights_that_are_not_numbers_are_refused(tmp_path, capsys):
    broken = {**TRAINED, "2.weight": TRAINED["2.weight"] * torch.nan}
    with pytest.raises(RepulseError, match=r"holds weights that are not numbers \(2.weight\): its training diverged$"):
        loaded(broken, tmp_path, capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "is a Git LFS pointer, not the file"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page, not the file itself"),
        (b"\x08\x08\x12\x07pytorch\x1a\x05", "is an ONNX model, not weights: give it as the model, --model "),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes"),
    ],
)
def test_what_only_has_the_name_of_weights_is_named(content, said, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(RepulseError) as caught:
        load_weights(small(), path)
    assert said in str(caught.value)


def test_another_pickle_protocol_is_no_ones_business(tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    torch.save(TRAINED, path, pickle_protocol=3)
    model = small()
    load_weights(model, path)
    assert same(model, TRAINED)
    assert not recwarn.list
    torch.save(TRAINED, path, pickle_protocol=4)
    with pytest.raises(RepulseError, match="holds a pickle of another protocol than PyTorch's own, which could run"):
        load_weights(model, path)


@pytest.mark.slow
def test_the_command_that_is_named_converts_the_file(tmp_path):
    path = tmp_path / "a model.pt"
    model = small()
    model.load_state_dict(TRAINED)
    torch.save({"net": model, "epoch": 1}, path)
    with pytest.raises(RepulseError) as caught:
        load_weights(small(), path)
    command = str(caught.value).split("at your own risk: ")[1]
    done = subprocess.run(
        command.replace("python", sys.executable, 1), shell=True, capture_output=True, text=True, check=True
    )
    assert "(9 tensors)" in done.stdout
    fresh = small()
    load_weights(fresh, path.with_suffix(".safetensors"))
    assert same(fresh, TRAINED)


@pytest.mark.parametrize(
    ("sign", "change"),
    [
        pytest.param(b"PK\x01\x02", 0, id="mark of an entry in the table of contents"),
        pytest.param(b"PK\x06\x07", 16, id="number of disks"),
    ],
)
def test_a_damaged_archive_is_one_line(sign, change, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(sign) + change] ^= 2
    path.write_bytes(bytes(data))
    with pytest.raises(RepulseError, match=r"w\.pt is damaged: [^\n]+; fetch it again$"):
        load_weights(nn.Linear(3, 1), path)
