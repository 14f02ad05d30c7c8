"""The GPU's script at smoke size on a CPU: it must run there at the first try."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from repulse.data import load_data
from repulse.data.sources import SOURCES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu"]
    # What a script registers must not be seen by other tests.
    SOURCES._entries.pop("packed")


@pytest.mark.parametrize("channels", [1, 3])
def test_packing_loses_nothing(gpu, channels):
    images = torch.randint(0, 256, (5, channels, 4, 6), dtype=torch.uint8)
    assert torch.equal(gpu.decode(gpu.encode(images), (5, channels, 4, 6)), images)


@pytest.fixture
def packed(gpu, tmp_path):
    gpu.main(["pack", "--data", "digits", "--output", str(tmp_path / "cifar10")])
    return tmp_path / "cifar10"


SMALL = ["--accelerator", "cpu", "--no-compile", "--precision", "32-true", "--width", "0.0625", "--epochs", "2"]


def run(gpu, packed, *more):
    folder = packed.parent
    argv = ["run", "--packed", str(packed), "--output", str(folder), "--runs", str(folder / "runs"), *SMALL, *more]
    gpu.main([*argv, "--images", "4", "--methods", "paper-linf", "fgsm-rs"])
    return json.loads((folder / "gpu.json").read_text())


def test_what_is_packed_is_the_data_set(gpu, packed):
    assert sorted(file.name for file in packed.iterdir()) == [
        "test-0.safetensors",
        "train-0.safetensors",
        "train-1.safetensors",
    ]
    before, after = load_data("digits"), load_data(str(packed), reader=SOURCES.make("packed"))
    assert after.train.sha256() == before.train.sha256()
    assert after.test.sha256() == before.test.sha256()
    assert after.train.class_names == before.train.class_names


@pytest.mark.slow
def test_models_are_trained_and_attacked_in_order_and_kept(gpu, packed):
    found = run(gpu, packed)
    # Adversarial training sees each image twice as often, so it has half of the epochs.
    assert [(row["method"], row["epochs"]) for row in found["models"]] == [("paper-linf", 2), ("fgsm-rs", 1)]
    for row in found["models"]:
        assert 0 < row["share_of_peak"] < 1
        assert row["record"]["data"]["count"] == 4
        assert {attack["group"] for attack in row["record"]["attacks"]} >= {"paper", "quick"}
    config = (packed.parent / "runs" / "cifar10" / "paper-linf" / "config.yaml").read_text()
    # 0.006 for batches of 128, so four times that for batches of 512; two of the paper's 200 epochs.
    assert "learning_rate: 0.024" in config
    assert "half_cycle: 5" in config


def test_what_would_not_end_in_time_is_left_out_and_said(gpu, packed):
    found = run(gpu, packed, "--minutes", "0")
    assert found["models"] == []
    assert found["left_out"] == ["cifar10, paper-linf: training", "cifar10, fgsm-rs: training"]
