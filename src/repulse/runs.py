"""A run folder: everything needed to repeat a training run, take it up again, or use its model.

| file | what |
|---|---|
| `config.yaml` | the resolved configuration |
| `environment.json` | versions, device, threads |
| `prototypes.safetensors` | the class prototypes, with how they were made; learned ones start there |
| `classes.json` | class names, image shape, normalisation, digest of the training data |
| `metrics.csv` | one row per epoch |
| `test.json` | natural accuracy of the trained model on all test images |
| `checkpoints/state.safetensors` | where training stands: weights, average, optimiser |
| `checkpoints/last.safetensors`, `best.safetensors` | weights to use: newest, and best in validation accuracy |
| `evaluations/NAME/` | what was measured |
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.common.seeding import derive_seed, generator
from repulse.common.settings import merge, to_yaml
from repulse.config.run import CONFIG_FILE, RunConfig, read_config
from repulse.data import Augment, DataSplits, ImageSource, load_data
from repulse.models import PrototypeClassifier, make_backbone
from repulse.prototypes import Prototypes, make_prototypes
from repulse.training import EpochMetrics, fit, make_fabric, natural_accuracy
from repulse.training.display import Output, TrainingDisplay
from repulse.training.metrics import METRICS_FILE, metrics_csv, read_metrics
from repulse.training.precision import precision_of
from repulse.training.state import TrainingState

Checkpoint = Literal["last", "best"]

PROTOTYPES_FILE = "prototypes.safetensors"
CLASSES_FILE = "classes.json"
ENVIRONMENT_FILE = "environment.json"
STATE_FILE = "checkpoints/state.safetensors"
TEST_FILE = "test.json"


@dataclass(frozen=True)
class Classes:
    """What a model must know of the data it was trained on."""

    names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_name: str
    train_sha256: str


def train_run(
    config: RunConfig, folder: Path, *, resume: bool = False, output: Output = "quiet"
) -> PrototypeClassifier:
    """Train as `config` says, keeping everything in `folder`, and return the trained model.

    A run that was interrupted loses at most the epoch it was in; with `resume` it goes on, and ends at the same
    weights as if it had not been interrupted.

    Args:
        config: the resolved configuration.
        folder: the run folder; made if absent.
        resume: go on with the run in `folder`, if there is one.
        output: `rich` (progress bar), `json` (a line per epoch on standard output) or `quiet`.

    Raises:
        RepulseError: if the folder holds a run already and `resume` is not set, or holds a run with other settings;
            if the data, a setting or the device is impossible; if the loss is no longer a number.
    """
    config = merge(config, {"fit": {"precision": precision_of(config.fit)}}, "precision")
    fabric = make_fabric(config.fit)
    fabric.launch()
    state = _open_folder(folder, config, resume)
    # Every process has looked at the folder before the first one writes to it.
    fabric.barrier()
    splits = load_splits(config)
    train, validation = splits.train, splits.validation
    prototypes = _prototypes(config, len(train.class_names))
    classes = _classes(train, config)
    model = build_model(config, prototypes, classes)
    if fabric.is_global_zero:
        _write_head(folder, config, prototypes, classes)
    with TrainingDisplay(output if fabric.is_global_zero else "quiet", config.fit.epochs) as display:
        keeper = _Keeper(folder, display, upto=0 if state is None else state.epoch)
        fit(
            model,
            config.loss,
            train,
            validation,
            config.fit,
            fabric=fabric,
            recipe=config.recipe,
            augment=Augment(**config.augment.model_dump()),
            seed=config.seed,
            state=state,
            watcher=keeper,
        )
    accuracy = natural_accuracy(model, splits.test, fabric=fabric)
    if fabric.is_global_zero:
        measured = {"natural_accuracy": accuracy, "images": len(splits.test), "test_sha256": splits.test.sha256()}
        write_atomically(folder / TEST_FILE, json.dumps(measured, indent=1) + "\n")
    if torch.distributed.is_initialized():
        # Leaving together: a process that is gone too early tears the others' connections.
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return model


def read_test_accuracy(folder: Path) -> tuple[float, int]:
    """The natural accuracy of a finished run on its test images, in [0, 1], and how many these are.

    Raises:
        RepulseError: if the run has not ended.
    """
    path = folder / TEST_FILE
    if not path.is_file():
        raise RepulseError(f"run {folder} has not ended: it has no {TEST_FILE}")
    content = json.loads(path.read_text(encoding="utf-8"))
    return float(content["natural_accuracy"]), int(content["images"])


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def load_run(folder: Path, checkpoint: Checkpoint = "last") -> tuple[PrototypeClassifier, RunConfig, Classes]:
    """The trained model of a run folder (on the CPU, in evaluation mode), its configuration and its classes.

    Raises:
        RepulseError: if the folder is no run folder, or has no such checkpoint yet.
    """
    config = read_config(folder)
    classes = _read_classes(folder)
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
    splits = load_data(
        data.source,
        reader=data.reader,
        name=data.name,
        image_column=data.image_column,
        label_column=data.label_column,
        train_split=data.train_split,
        test_split=data.test_split,
        validation=data.validation,
        image_size=data.image_size,
        channels=data.channels,
        class_names=data.class_names,
        seed=config.seed,
    )
    return splits if data.train_images is None else splits.limit(train=data.train_images, seed=config.seed)


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


class _Keeper:
    """Writes an epoch's metrics and checkpoints to the run folder, and passes the news on."""

    def __init__(self, folder: Path, display: TrainingDisplay, upto: int) -> None:
        self.folder = folder
        self.display = display
        self.rows = [row for row in read_metrics(folder) if row.epoch <= upto]
        self.tensorboard = _tensorboard(folder, upto)

    def on_step(self, epoch: int, step: int, steps: int, images: int) -> None:
        self.display.on_step(epoch, step, steps, images)

    def on_epoch(self, metrics: EpochMetrics, state: TrainingState, weights: dict[str, Tensor]) -> None:
        best = max((row.validation_accuracy or 0 for row in self.rows), default=-1.0)
        self.rows.append(metrics)
        about = {"epoch": str(metrics.epoch)}
        checkpoints = self.folder / "checkpoints"
        save_tensors(checkpoints / "last.safetensors", weights, about)
        if metrics.validation_accuracy is not None and metrics.validation_accuracy > best:
            save_tensors(checkpoints / "best.safetensors", weights, about)
        write_atomically(self.folder / METRICS_FILE, metrics_csv(self.rows))
        # The state comes last: what it says is done has then been written.
        save_tensors(self.folder / STATE_FILE, state.tensors, about)
        if self.tensorboard is not None:
            for name, value in asdict(metrics).items():
                if name != "epoch" and value is not None:
                    self.tensorboard.add_scalar(name, value, metrics.epoch)
            self.tensorboard.flush()
        self.display.on_epoch(metrics, state, weights)


def _tensorboard(folder: Path, upto: int):  # type: ignore[no-untyped-def]
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=upto + 1)


def _open_folder(folder: Path, config: RunConfig, resume: bool) -> TrainingState | None:
    if not (folder / CONFIG_FILE).is_file():
        return None
    if not resume:
        raise RepulseError(f"{folder} holds a run already; go on with it by --resume, or name another folder")
    changed = differences(read_config(folder), config)
    if changed:
        raise RepulseError(f"cannot resume {folder} with other settings ({', '.join(changed)}); name another folder")
    if not (folder / STATE_FILE).is_file():
        return None
    tensors, about = load_tensors(folder / STATE_FILE)
    return TrainingState(int(about["epoch"]), tensors)


# Where and how fast a run goes may change when it is resumed; what it computes may not.
_FREE_TO_CHANGE = {"fit.accelerator", "fit.devices", "fit.nodes", "fit.compile"}


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


def _prototypes(config: RunConfig, n: int) -> Prototypes:
    settings = config.prototypes
    if settings.file is not None:
        prototypes = Prototypes.load(settings.file)
        if prototypes.n != n:
            raise RepulseError(f"{settings.file} holds {prototypes.n} prototypes, but the data has {n} classes")
        return prototypes.scaled(settings.scale)
    seed = config.seed if settings.seed is None else settings.seed
    made = make_prototypes(settings.method, n, settings.dimension or n, seed=seed, steps=settings.steps)
    return made.scaled(settings.scale)


def _classes(train: ImageSource, config: RunConfig) -> Classes:
    # 10,000 images fix mean and deviation to a part in a thousand; a streamed set need not be read whole for them.
    order = torch.randperm(len(train), generator=generator(config.seed, "normalisation"))
    pixels = train.fetch(order[:10_000]).double() / 255
    mean = pixels.mean((0, 2, 3))
    # A channel without variation, as in a synthetic set, is left at its scale.
    std = pixels.std((0, 2, 3), correction=0).clamp_min(1e-3)
    return Classes(
        names=tuple(train.class_names),
        image_shape=tuple(train.image_shape),
        mean=tuple(round(value, 6) for value in mean.tolist()),
        std=tuple(round(value, 6) for value in std.tolist()),
        data_name=train.name,
        train_sha256=train.sha256(),
    )


def _read_classes(folder: Path) -> Classes:
    path = folder / CLASSES_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return Classes(**plain)
    except (OSError, ValueError, TypeError) as error:
        raise RepulseError(f"cannot read {path}: {error}") from error


def _write_head(folder: Path, config: RunConfig, prototypes: Prototypes, classes: Classes) -> None:
    prototypes.save(folder / PROTOTYPES_FILE)
    write_atomically(folder / CLASSES_FILE, json.dumps(asdict(classes), indent=1) + "\n")
    write_atomically(folder / ENVIRONMENT_FILE, json.dumps(environment(), indent=1) + "\n")
    # The configuration comes last: with it the folder counts as a run.
    write_atomically(folder / CONFIG_FILE, to_yaml(config))
