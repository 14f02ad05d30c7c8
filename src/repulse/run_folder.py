"""Read a run folder, and write what stands in it before training; its files are named in `repulse.common.run_files`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, write_atomically
from repulse.common.run_files import CLASSES_FILE, CONFIG_FILE, ENVIRONMENT_FILE, PROTOTYPES_FILE, TEST_FILE
from repulse.common.seeding import derive_seed
from repulse.common.settings import to_yaml
from repulse.config.run import RunConfig, read_config
from repulse.data import DataSplits, ImageSource, load_data, load_test
from repulse.data.labels import OtherClassesError
from repulse.data.settings import DataSettings
from repulse.models import PrototypeClassifier, make_backbone
from repulse.places import located
from repulse.prototypes import Prototypes

Checkpoint = Literal["last", "best"]


@dataclass(frozen=True)
class Classes:
    """What a model must know of the data it was trained on."""

    names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_name: str
    train_sha256: str


def read_test_accuracy(folder: str | Path) -> tuple[float, int]:
    """The natural accuracy of a finished run on its test images, in [0, 1], and how many these are.

    Raises:
        RepulseError: if the run has not ended.
    """
    path = Path(folder) / TEST_FILE
    if not path.is_file():
        raise RepulseError(f"run {folder} has not ended: it has no {TEST_FILE}")
    content = json.loads(path.read_text(encoding="utf-8"))
    return float(content["natural_accuracy"]), int(content["images"])


def load_run(folder: str | Path, checkpoint: Checkpoint = "last") -> tuple[PrototypeClassifier, RunConfig, Classes]:
    """The trained model of a run folder (on the CPU, in evaluation mode), its configuration and its classes.

    Args:
        folder: the run folder, or `zoo:NAME`, or `hub:ORG/NAME`.
        checkpoint: weights of the last epoch, or of the best in validation accuracy.

    Raises:
        RepulseError: if the folder is no run folder, or has no such checkpoint yet.
    """
    folder = located(folder)
    config = read_config(folder)
    classes = read_classes(folder)
    model = build_model(config, Prototypes.load(folder / PROTOTYPES_FILE), classes)
    path = folder / "checkpoints" / f"{checkpoint}.safetensors"
    if not path.is_file():
        hint = "it had no validation images" if checkpoint == "best" else "has the first epoch ended?"
        raise RepulseError(f"run {folder} has no checkpoint {checkpoint!r} ({hint})")
    weights, _ = load_tensors(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RepulseError(f"{path} does not fit the network in {folder / CONFIG_FILE}") from error
    return model.eval(), config, classes


def load_splits(config: RunConfig) -> DataSplits:
    """The images that a configuration names.

    Raises:
        RepulseError: if they cannot be read.
    """
    data = config.data
    splits = load_data(data.source, **_how(data), validation=data.validation, seed=config.seed)
    return splits if data.train_images is None else splits.limit(train=data.train_images, seed=config.seed)


def load_test_split(config: RunConfig, classes: Classes) -> ImageSource:
    """The test images that a configuration names, with the numbers that a model of these classes gives them.

    Classes are found by name, so the data may have them in another order, or only some of them.

    Raises:
        RepulseError: if the images cannot be read, or have other classes or another shape.
    """
    try:
        test = load_test(config.data.source, **(_how(config.data) | {"class_names": classes.names}))
    except OtherClassesError as error:
        theirs, ours = len(error.own), len(classes.names)
        few = "" if theirs != ours else f" of other names ({', '.join(error.own[:5])})"
        raise RepulseError(f"the run was trained on {ours} classes, but this data has {theirs}{few}") from error
    if tuple(test.image_shape) != tuple(classes.image_shape):
        raise RepulseError(
            f"the run was trained on images of shape {tuple(classes.image_shape)}, but these are {test.image_shape}"
        )
    return test


def _how(data: DataSettings) -> dict[str, Any]:
    """How to read images, as arguments of `load_data` and `load_test` alike."""
    names = (
        *("reader", "name", "image_column", "label_column", "train_split", "test_split"),
        *("image_size", "channels", "class_names"),
    )
    return {name: getattr(data, name) for name in names}


def build_model(config: RunConfig, prototypes: Prototypes, classes: Classes) -> PrototypeClassifier:
    """An untrained model as `config` says, its random start drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "model"))
        backbone = make_backbone(
            config.model.backbone,
            channels=classes.image_shape[0],
            dimension=prototypes.d,
            width=config.model.width,
        )
    return PrototypeClassifier(
        backbone,
        prototypes,
        config.model.readout,
        temperature=config.model.temperature,
        mean=classes.mean,
        std=classes.std if config.model.standardise else (1.0,),
        mirror=config.model.mirror,
        shift=config.model.shift,
        learn_prototypes=config.model.learn_prototypes,
    )


# Where and how fast a run goes may change when it is resumed; what it computes may not.
_FREE_TO_CHANGE = {"fit.accelerator", "fit.devices", "fit.nodes", "fit.compile", "fit.wandb"}


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """The dotted names of settings by which two configurations compute different things."""
    return _differences(old.model_dump(mode="json"), new.model_dump(mode="json"))


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in new.items():
        path = prefix + key
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            found += _differences(old[key], value, path + ".")
        # Another kind of a choice has settings of its own; its name says enough.
        elif key in old and old[key] != value and path not in _FREE_TO_CHANGE:
            found.append(path)
    return found


def read_classes(folder: Path) -> Classes:
    """What the model of a run folder knows of its data.

    Raises:
        RepulseError: if the file is absent or no such file.
    """
    path = folder / CLASSES_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return Classes(**plain)
    except (OSError, ValueError, TypeError) as error:
        raise RepulseError(f"cannot read {path}: {error}") from error


def write_head(folder: Path, config: RunConfig, prototypes: Prototypes, classes: Classes) -> None:
    """Write what stands before training begins."""
    prototypes.save(folder / PROTOTYPES_FILE)
    write_atomically(folder / CLASSES_FILE, json.dumps(asdict(classes), indent=1) + "\n")
    write_atomically(folder / ENVIRONMENT_FILE, json.dumps(environment(), indent=1) + "\n")
    # The configuration comes last: with it the folder counts as a run.
    write_atomically(folder / CONFIG_FILE, to_yaml(config))
