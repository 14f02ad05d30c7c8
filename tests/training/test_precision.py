"""Every precision trains, and `auto` is what the machine has units for."""

import pytest
import torch
from tasks import CROSS_ENTROPY, grey, network

from repulse.data import ImageSet
from repulse.models import PrototypeClassifier, make_backbone
from repulse.training import LOSSES, FitSettings, Task, fit, make_fabric, natural_accuracy
from repulse.training.precision import precision_of
from repulse.training.recipes import NFGSM, InputGradient, Standard


def images(count=32):
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 3, ("a", "b", "c"), "noise", "train")


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true", "16-true"])
@pytest.mark.parametrize("recipe", [Standard(), NFGSM(), InputGradient()])
def test_training_and_validation_run_in_every_precision(precision, recipe):
    torch.manual_seed(0)
    backbone = make_backbone("small-cnn", channels=1, dimension=3, width=0.125)
    model = PrototypeClassifier(backbone, torch.eye(3), "cosine", mean=(0.5,), std=(0.3,))
    settings = FitSettings(
        epochs=2, batch_size=16, precision=precision, accelerator="cpu", devices="1", optimiser={"learning_rate": 0.01}
    )
    fabric = make_fabric(settings)
    fabric.launch()
    fit(model, LOSSES["cross-entropy"](), images(), images(), settings, fabric=fabric, recipe=recipe)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert 0 <= natural_accuracy(model, images(), fabric=fabric) <= 1


@pytest.mark.parametrize("loss", ["cosine", "cosine-squared", "cosine-batch-axis"])
def test_an_embedding_of_zero_costs_a_number_in_half_precision(loss):
    z = torch.zeros(3, 3, dtype=torch.float16, requires_grad=True)
    head = network()
    values = LOSSES[loss]().per_example(z, torch.arange(3), head)
    torch.testing.assert_close(values.detach().float(), torch.ones(3))


def test_auto_is_half_precision_only_where_there_are_units_for_it(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has, picked in (({"amx_bf16": True}, "bf16-mixed"), ({"avx512_bf16": True}, "bf16-mixed"), ({}, "32-true")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert precision_of(FitSettings(precision="auto")) == picked
    said = capsys.readouterr().err
    assert "precision: bf16-mixed, for this processor computes in bfloat16 (AMX)" in said
    assert "precision: 32-true, for this processor has no units for bfloat16" in said
    assert precision_of(FitSettings(precision="64-true")) == "64-true"


def test_auto_on_a_gpu_asks_for_its_generation(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    for generation, picked in (((9, 0), "bf16-mixed"), ((7, 5), "32-true")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda generation=generation: generation)
        assert precision_of(FitSettings(precision="auto")) == picked
    assert precision_of(FitSettings(precision="auto", accelerator="mps")) == "32-true"


def test_a_recipe_of_a_model_in_half_precision_gives_single_precision():
    x, y = grey(6, side=8, classes=3)
    result = NFGSM()(Task(network().to(torch.bfloat16), CROSS_ENTROPY), x, y)
    assert result.values.dtype == result.z.dtype == torch.float32
