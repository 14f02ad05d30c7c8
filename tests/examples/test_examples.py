"""The examples train somebody's network on digits, each in its own framework."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from repulse import load_data

EXAMPLES = Path(__file__).parents[2] / "examples"


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def digits():
    splits = load_data("digits", seed=0).limit(train=600, seed=0)
    return [(part.images.float() / 255, part.labels) for part in (splits.train, splits.test)]


def loader(part):
    return DataLoader(TensorDataset(*part), batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(0))


def right(logits, labels):
    return float((logits.argmax(1) == labels).float().mean())


def test_plain_pytorch(digits):
    train, (x, y) = digits
    net = network()
    example = runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))
    criterion = example["train"](net, loader(train), classes=10, dimension=10)
    assert right(criterion.logits(net(x)), y) > 0.85


@pytest.mark.others
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_a_lightning_module(digits, eps, tmp_path):
    lightning = pytest.importorskip("lightning")
    train, (x, y) = digits
    module = runpy.run_path(str(EXAMPLES / "lightning_module.py"))["PrototypeModule"](network(), 10, 10, eps)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=5, accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(module, loader(train))
    assert right(module.eval()(x), y) > 0.85
    assert "criterion.prototypes" in module.state_dict()


@pytest.mark.others
@pytest.mark.filterwarnings("ignore")
def test_the_hugging_face_trainer(digits, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    train, (x, y) = digits
    model = runpy.run_path(str(EXAMPLES / "hugging_face_trainer.py"))["PrototypeModel"](network(), 10, 10)
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(*train, strict=True)]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=5,
        per_device_train_batch_size=50,
        learning_rate=3e-3,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
        remove_unused_columns=False,
    )
    transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert right(model.eval()(x)["logits"], y) > 0.85
