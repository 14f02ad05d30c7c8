"""Models by the names that other libraries give them: found, normalised as their own processor says, or one line."""

import json
import sys
import types
from enum import Enum

import pytest
import torch
from torch import nn

from repulse.common.errors import RepulseError
from repulse.models.foreign import Normalised, load_foreign
from repulse.models.foreign.transformers_models import ImageClassifier, _normalisation, _size

# RobustBench, which is on no registry for everybody: a module with its interface.


class _Data(Enum):
    cifar_10 = "cifar10"
    cifar_100 = "cifar100"


class _Threat(Enum):
    linf = "Linf"
    l2 = "L2"


@pytest.fixture
def robustbench(monkeypatch):
    asked = []

    def load_model(*, model_name, dataset, threat_model):
        if model_name == "Gone2020":
            raise ConnectionError("no route\nto the host")
        asked.append((dataset, threat_model, model_name))
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    package, zoo, utils = (types.ModuleType(f"robustbench{end}") for end in ("", ".model_zoo", ".utils"))
    zoo.model_dicts = {
        _Data.cifar_10: {
            _Threat.linf: {"Wong2020Fast": {}, "Standard": {}, "Gone2020": {}},
            _Threat.l2: {"Standard": {}},
        },
        _Data.cifar_100: {_Threat.linf: {"Rice2020": {}}},
    }
    utils.load_model = load_model
    for module in (package, zoo, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


def fails(spec, **options):
    with pytest.raises(RepulseError) as caught:
        load_foreign(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Wong2020Fast", ("cifar10", "Linf", "Wong2020Fast")),
        ("cifar100/Rice2020", ("cifar100", "Linf", "Rice2020")),
        ("L2/Standard", ("cifar10", "L2", "Standard")),
        ("cifar10/linf/Standard", ("cifar10", "Linf", "Standard")),
    ],
)
def test_a_name_of_robustbench_is_found_with_its_data_and_threat(robustbench, name, place):
    model = load_foreign(f"robustbench:{name}")
    assert robustbench == [place]
    assert model(torch.rand(2, 1, 2, 2)).shape == (2, 3)
    assert not model.training


def test_other_names_of_robustbench_are_one_line(robustbench):
    assert "did you mean 'Wong2020Fast'" in fails("robustbench:Wong2020Fats")
    assert "robustbench:cifar10/Linf/Standard or robustbench:cifar10/L2/Standard" in fails("robustbench:Standard")
    assert fails("robustbench:Gone2020").endswith("over the network: ConnectionError: no route")
    assert "weights of its own" in fails("robustbench:Wong2020Fast", weights="net.pt")


def test_without_robustbench_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    assert "needs robustbench: pip install" in fails("robustbench:Standard")


# Processors of transformers, read without it.


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        (
            {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1]},
            (0.5, 0.4, 0.3),
            (0.2, 0.3, 0.1),
        ),
        ({"do_normalize": False, "image_mean": [0.5]}, None, None),
        # Pixels from 0 to 255, and from -1 to 1 by the factor alone.
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [255.0]}, (0.5,), (1.0,)),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0], "image_std": [1.0]}, (0.5,), (0.5,)),
        ({}, None, None),
    ],
)
def test_what_a_processor_does_to_pixels_is_said_for_pixels_from_0_to_1(processor, mean, std):
    found = _normalisation(processor)
    assert found == tuple(None if each is None else pytest.approx(each) for each in (mean, std))


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": {"height": 8, "width": 6}}, (8, 6)),
        ({"size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True}, (8, 8)),
        ({"size": {"shortest_edge": 9}, "do_center_crop": False}, (9, 9)),
        ({"size": 7}, (7, 7)),
        ({"size": 7, "do_resize": False}, (16, 16)),
        ({}, (16, 16)),
    ],
)
def test_the_size_is_what_the_network_gets_to_see(processor, size):
    network = types.SimpleNamespace(config=types.SimpleNamespace(image_size=16))
    assert _size(processor, network) == size


def test_images_of_another_size_are_brought_to_it_and_others_left_alone():
    class Answer(nn.Module):
        def forward(self, pixel_values):
            return types.SimpleNamespace(logits=pixel_values.flatten(1))

    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(ImageClassifier(Answer(), (8, 8))(x), x.flatten(1))
    grey = torch.full((2, 1, 8, 8), 0.3)
    torch.testing.assert_close(ImageClassifier(Answer(), (4, 4), "bicubic")(grey), torch.full((2, 16), 0.3))


def test_names_that_nothing_answers_to_are_one_line(tmp_path, monkeypatch):
    assert "has a config.json" in fails(f"hf:{tmp_path}")
    assert "no such folder" in fails(f"hf:{tmp_path / 'absent'}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert fails("hf:org/name") == "hf:org/name needs transformers: pip install 'repulse[hf]'"


# With transformers itself.


@pytest.fixture
def folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=8, patch_size=4, num_channels=3, num_labels=3,
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    said = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "do_normalize": True}
    said |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1], "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    return tmp_path, network


@pytest.mark.others
def test_a_folder_of_transformers_is_a_model_of_pixels(folder, monkeypatch, capsys):
    path, network = folder
    model = load_foreign(f"hf:{path}")
    assert isinstance(model, Normalised)
    x = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.1]))
    torch.testing.assert_close(model(x), network((x - mean) / std).logits)
    assert model(torch.rand(2, 3, 11, 11)).shape == (2, 3)
    torch.testing.assert_close(load_foreign(f"hf:{path}", mean=(0.0,))(x), network(x).logits)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "no classifier of images" in fails(f"hf:{path}")
    (path / "config.json").write_text("{")
    assert "cannot be loaded" in fails(f"hf:{path}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "is not in the cache, and the Hugging Face Hub cannot be reached" in fails("hf:nobody/none")
