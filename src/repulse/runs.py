"""Train a run, and keep everything in its folder; see `repulse.run_folder` for what that holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.common.notice import notice
from repulse.common.progress import Callback
from repulse.common.run_files import CONFIG_FILE, METRICS_FILE, STATE_FILE, TEST_FILE
from repulse.common.seeding import generator
from repulse.common.settings import merge
from repulse.config.run import RunConfig, read_config
from repulse.data import ImageSource
from repulse.models import PrototypeClassifier
from repulse.models.pretrained import begin_with
from repulse.prototypes import Prototypes, make_prototypes
from repulse.run_folder import Classes, build_model, differences, load_splits, write_head
from repulse.training import EpochMetrics, fit, make_fabric, natural_accuracy
from repulse.training.display import Output, TrainingDisplay
from repulse.training.loggers import Logger, loggers
from repulse.training.metrics import metrics_csv, read_metrics
from repulse.training.precision import precision_of
from repulse.training.state import TrainingState

# Fewer steps than this teach a network little; the paper's networks train for 78,000.
FEW_STEPS = 200


def train_run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    output: Output = "quiet",
    progress: Callback | None = None,
) -> PrototypeClassifier:
    """Train as `config` says, keeping everything in `folder`, and return the trained model.

    A run that was interrupted loses at most the epoch it was in; with `resume` it goes on, and ends at the same
    weights as if it had not been interrupted. With more epochs than before it is extended: the schedule is that of the
    longer run, from the epoch on that was reached.

    Args:
        config: the resolved configuration.
        folder: the run folder; made if absent.
        resume: go on with the run in `folder`, if there is one.
        output: `rich` (progress bar), `json` (a line per epoch on standard output) or `quiet`.
        progress: called after each step with `("training", images done, images in all epochs)`.

    Raises:
        RepulseError: if the folder holds a run already and `resume` is not set, or holds a run with other settings;
            if the data, a setting or the device is impossible; if the loss is no longer a number.
    """
    config = merge(config, {"fit": {"precision": precision_of(config.fit)}}, "precision")
    folder = Path(folder)
    fabric = make_fabric(config.fit)
    fabric.launch()
    _refuse_another(folder, resume)
    splits = load_splits(config)
    train, validation = splits.train, splits.validation
    epochs, remark = _epochs(config, len(train))
    config = merge(config, {"fit": {"epochs": epochs}}, "epochs")
    state = _open_folder(folder, config)
    # Every process has looked at the folder before the first one writes to it.
    fabric.barrier()
    prototypes = _prototypes(config, len(train.class_names))
    classes = _classes(train, config)
    model = build_model(config, prototypes, classes)
    if state is None:
        begin_with(
            model.backbone,
            config.model.pretrained,
            str(config.model.backbone),
            classes.image_shape[0],
            prototypes.d,
        )
    # Last, so that a mistake is told on a line of its own.
    if remark:
        notice(remark)
    first = fabric.is_global_zero
    if first:
        write_head(folder, config, prototypes, classes)
    with TrainingDisplay(output if first else "quiet", config.fit.epochs, progress=progress) as display:
        upto = 0 if state is None else state.epoch
        told = loggers(folder, upto, config.fit.wandb, config.name, config.model_dump(mode="json")) if first else []
        keeper = _Keeper(folder, display, upto, told)
        fit(
            model,
            config.loss,
            train,
            validation,
            config.fit,
            fabric=fabric,
            recipe=config.recipe,
            augment=config.augment,
            seed=config.seed,
            state=state,
            history=[row.validation_accuracy for row in keeper.rows],
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


class _Keeper:
    """Writes an epoch's metrics and checkpoints to the run folder, and passes the news on."""

    def __init__(self, folder: Path, display: TrainingDisplay, upto: int, told: list[Logger]) -> None:
        self.folder = folder
        self.display = display
        self.rows = [row for row in read_metrics(folder) if row.epoch <= upto]
        self.loggers = told

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
        told = {name: value for name, value in asdict(metrics).items() if name != "epoch" and value is not None}
        for logger in self.loggers:
            logger(told, metrics.epoch)
        self.display.on_epoch(metrics, state, weights)


def _epochs(config: RunConfig, images: int) -> tuple[int, str]:
    """The epochs that are asked for, or as many as the least steps take; and what to say about them."""
    asked, steps = config.fit.epochs, max(1, images // config.fit.batch_size)
    epochs = max(asked, -(-config.fit.least_steps // steps))
    if epochs > asked:
        return epochs, (
            f"{epochs} epochs in place of {asked}, for {images:,} images make {steps} steps (fit.least_steps)"
        )
    if asked * steps < FEW_STEPS:
        return asked, (
            f"{asked} epochs of {images:,} images are {asked * steps} steps, which is little: `--preset small` trains "
            "longer on few images, and augments them"
        )
    return asked, ""


def _refuse_another(folder: Path, resume: bool) -> None:
    if (folder / CONFIG_FILE).is_file() and not resume:
        raise RepulseError(f"{folder} holds a run already; go on with it by --resume, or name another folder")


def _open_folder(folder: Path, config: RunConfig) -> TrainingState | None:
    if not (folder / CONFIG_FILE).is_file():
        return None
    changed = [name for name in differences(read_config(folder), config) if name not in ("fit.epochs", "fit.patience")]
    if changed:
        raise RepulseError(f"cannot resume {folder} with other settings ({', '.join(changed)}); name another folder")
    if not (folder / STATE_FILE).is_file():
        return None
    tensors, about = load_tensors(folder / STATE_FILE)
    done = int(about["epoch"])
    if config.fit.epochs < done:
        raise RepulseError(f"cannot resume {folder} for {config.fit.epochs} epochs, for {done} are done; give no fewer")
    return TrainingState(done, tensors)


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
