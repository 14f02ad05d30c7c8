"""The one training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.common.seeding import derive_seed
from repulse.data import Augment, ImageSource, batches, steps_per_epoch
from repulse.models import PrototypeClassifier
from repulse.training.averages import WeightAverage
from repulse.training.loss import Loss
from repulse.training.metrics import EpochMetrics
from repulse.training.mixing import cut_mixed
from repulse.training.optimisers import make_optimiser, set_learning_rate
from repulse.training.patience import Patience
from repulse.training.phases import Phased, phased
from repulse.training.precision import precision_of
from repulse.training.progressive import check_size, size_in_epoch, smaller
from repulse.training.recipe import Progressing, Recipe, Replaying, Task
from repulse.training.recipes.plain import Standard
from repulse.training.settings import FitSettings
from repulse.training.state import TrainingState, averaged, capture, restore

# Asking the device for the loss stops the pipeline on a GPU; a run that diverged may go on for this many steps.
CHECK_EVERY = 25

EVALUATION_BATCH = 1000


@runtime_checkable
class Watcher(Protocol):
    """Who is told how training goes."""

    def on_step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """After each step of an epoch; `images` is the number of images of the step."""

    def on_epoch(self, metrics: EpochMetrics, state: TrainingState, weights: dict[str, Tensor]) -> None:
        """After each epoch, on the first process only; `weights` are those to evaluate: an average, if there is one."""


class _Step(nn.Module):
    """The forward part of a step as one module, so that DDP and the compiler see all of it."""

    def __init__(self, model: PrototypeClassifier, loss: Loss, recipe: Recipe | Phased, cutmix: float) -> None:
        super().__init__()
        self.model = model
        self.task = Task(model, loss.per_example)
        self.recipe = recipe
        self.cutmix = cutmix

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        task = self.task
        if self.cutmix:
            x, task = cut_mixed(task, x, y, self.cutmix)
        values, z = self.recipe(task, x, y)
        with torch.no_grad():
            hits = (self.model.classify(z).argmax(1) == y).sum()
        return values, hits


def make_fabric(settings: FitSettings) -> Fabric:
    """Lightning Fabric for the settings: one process, or as many as `torchrun` started.

    Raises:
        RepulseError: if the device or precision that is asked for is not to be had.
    """
    devices: int | str = int(settings.devices) if settings.devices.isdigit() else settings.devices
    on_cpu = settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and devices == "auto":
        # Fabric's "auto" is one process on a CPU, yet under torchrun it must equal the number that was started.
        devices = _processes_on_this_node()
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=settings.nodes,
            precision=precision_of(settings),
            strategy="ddp" if _processes_on_this_node() * settings.nodes > 1 else "auto",
        )
    except (RuntimeError, ValueError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise RepulseError(
            f"cannot train with accelerator={settings.accelerator}, devices={settings.devices}, "
            f"precision={settings.precision}: {reason}"
        ) from error


def fit(
    model: PrototypeClassifier,
    loss: Loss,
    train: ImageSource,
    validation: ImageSource | None,
    settings: FitSettings,
    *,
    fabric: Fabric,
    recipe: Recipe | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    state: TrainingState | None = None,
    history: Sequence[float | None] = (),
    watcher: Watcher | None = None,
) -> None:
    """Train the model in place; at the end it holds the weights to evaluate.

    Everything random is drawn from `seed` and the number of the epoch, so a run that is taken up again from a `state`
    ends, on one machine, at the same weights as one that was never stopped.

    Args:
        model: the classifier; a backbone with a method `initialise(images)` is given training images first, and one
            with a method `on_progress(share)` is told before each step which share of all steps is done, in [0, 1).
        loss: an alignment loss.
        train: the training images.
        validation: images for the natural accuracy after each epoch, or None.
        settings: epochs, batch size, optimiser, schedule, average, precision.
        fabric: where it runs, from `make_fabric`, launched.
        recipe: how a batch becomes what is minimised, told of progress in the same way; None: the loss of the clean
            images. Each replay of a batch, if it has any, is a step of the optimiser, the schedule and the average.
        augment: random changes to training images.
        seed: of order, augmentation and dropout.
        state: where to go on from; None starts anew.
        history: validation accuracies of the epochs before `state`, which `settings.patience` counts.
        watcher: told after each step and each epoch.

    Raises:
        RepulseError: if patience has no validation images, the loss is no longer a number, or the state belongs to
            another run.
    """
    check_size(model, settings.progressive, train.image_shape)
    patience = Patience(settings, recipe, history, validation is not None)
    if state is None:
        _initialise(model, train, seed)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = Standard() if recipe is None else recipe
    replays = recipe.replays if isinstance(recipe, Replaying) else 1
    in_phases = phased(recipe)
    step_module: nn.Module = _Step(model, loss, in_phases, settings.cutmix)
    optimiser = make_optimiser(model, settings.optimiser)
    if settings.sync_batch_norm:
        step_module = nn.SyncBatchNorm.convert_sync_batchnorm(step_module)  # type: ignore[no-untyped-call]
    if settings.compile:
        step_module = torch.compile(step_module)  # type: ignore[assignment]
    wrapped, wrapped_optimiser = fabric.setup(step_module, optimiser)
    average = WeightAverage(model, settings.averaging)
    if state is not None:
        restore(state, model, optimiser, average)

    steps = steps_per_epoch(len(train), settings.batch_size, drop_last=_drop_last(train, settings))
    total = steps * settings.epochs * replays
    told = [each for each in (model.backbone, in_phases) if isinstance(each, Progressing)]
    for epoch in range(0 if state is None else state.epoch, settings.epochs):
        if patience.is_over:
            notice(patience.words)
            break
        started = time.perf_counter()
        torch.manual_seed(derive_seed(seed, "dropout", epoch, fabric.global_rank))
        model.train()
        sums = torch.zeros(3, dtype=torch.float64, device=fabric.device)
        learning_rate = 0.0
        drift = recipe.drift() if isinstance(recipe, Replaying) else None
        # Every batch as often as it is replayed: a step is a pass.
        passes = (
            batch for batch in _train_batches(train, settings, epoch, seed, augment, fabric) for _ in range(replays)
        )
        for place, (clean, y) in enumerate(passes):
            index, replay = divmod(place, replays)
            step = epoch * steps * replays + place
            learning_rate = settings.optimiser.learning_rate * settings.schedule.factor(step, total)
            set_learning_rate(optimiser, learning_rate)
            for each in told:
                each.on_progress(step / total)
            values, hits = wrapped(clean if drift is None else drift.moved(clean), y)
            wrapped_optimiser.zero_grad()
            try:
                fabric.backward(_reduce(values, loss, _global_batch(train, settings, index), fabric.world_size))
            except NotImplementedError as error:
                if "derivative" not in str(error):
                    raise
                raise RepulseError(
                    f"a part of this model cannot be trained by this recipe ({error}); a penalty on gradients needs "
                    "second derivatives, which readout 'linf' lacks, so take another recipe or readout"
                ) from error
            if settings.optimiser.clip_norm is not None:
                fabric.clip_gradients(wrapped, wrapped_optimiser, max_norm=settings.optimiser.clip_norm)
            if drift is not None:
                drift.climb()
            wrapped_optimiser.step()
            average.update(model, step + 1, total)
            sums += torch.stack((values.detach().sum().double(), hits.double(), hits.new_tensor(len(y)).double()))
            if replay + 1 < replays:
                continue
            if (index + 1) % CHECK_EVERY == 0 or index + 1 == steps:
                _check_finite(sums[0], model, epoch, index + 1, whole=index + 1 == steps)
            if watcher is not None:
                watcher.on_step(epoch, index + 1, steps, _global_batch(train, settings, index))
        seconds = time.perf_counter() - started
        loss_sum, hit_count, count = _sum_over_processes(sums, fabric).tolist()
        with averaged(model, average):
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            accuracy = None if validation is None else natural_accuracy(model, validation, fabric=fabric)
        metrics = EpochMetrics(
            epoch + 1, loss_sum / count, hit_count / count, accuracy, learning_rate, seconds, count / replays / seconds
        )
        patience.after_epoch(accuracy)
        if watcher is not None and fabric.is_global_zero:
            watcher.on_epoch(metrics, capture(epoch + 1, model, optimiser, average), weights)
        fabric.barrier()
    average.copy_to(model)
    model.eval()


@torch.inference_mode()
def natural_accuracy(model: nn.Module, images: ImageSource, *, fabric: Fabric) -> float:
    """The share of images that the model, in evaluation mode, classifies right; in [0, 1], over all processes."""
    sums = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    for x, y in batches(
        images,
        EVALUATION_BATCH,
        epoch=0,
        seed=0,
        shuffle=False,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    ):
        with fabric.autocast():
            hits = (model(x).argmax(1) == y).sum()
        sums += torch.stack((hits.double(), hits.new_tensor(len(y)).double()))
    hits_sum, count = _sum_over_processes(sums, fabric).tolist()
    return float(hits_sum / count)


def _initialise(model: PrototypeClassifier, train: ImageSource, seed: int) -> None:
    initialise: Callable[[Tensor], None] | None = getattr(model.backbone, "initialise", None)
    if initialise is None:
        return
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(derive_seed(seed, "initialise")))
    pixels = train.fetch(order[:5000]).float() / 255
    initialise((pixels - model.mean) / model.std)


def _drop_last(train: ImageSource, settings: FitSettings) -> bool:
    # A last batch of a handful of images would upset the batch statistics, unless it is the only one.
    return len(train) >= settings.batch_size


def _train_batches(
    train: ImageSource, settings: FitSettings, epoch: int, seed: int, augment: Augment | None, fabric: Fabric
) -> Iterator[tuple[Tensor, Tensor]]:
    size = size_in_epoch(settings.progressive, epoch, settings.epochs)
    drawn = batches(
        train,
        settings.batch_size,
        epoch=epoch,
        seed=seed,
        shuffle=True,
        augment=augment,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        drop_last=_drop_last(train, settings),
        channels_last=settings.channels_last,
    )
    return drawn if size is None else ((smaller(x, size), y) for x, y in drawn)


def _global_batch(train: ImageSource, settings: FitSettings, index: int) -> int:
    return min(settings.batch_size, len(train) - index * settings.batch_size)


def _reduce(values: Tensor, loss: Loss, global_batch: int, world_size: int) -> Tensor:
    # DDP averages the gradients of the processes, whose shares of a batch may differ by one image. Summing here and
    # dividing by the whole batch gives the gradient that one process would compute.
    total = values.sum() * world_size
    return total / global_batch if loss.reduction == "mean" else total


def _check_finite(loss_sum: Tensor, model: nn.Module, epoch: int, step: int, *, whole: bool) -> None:
    finite = bool(torch.isfinite(loss_sum))
    if finite and whole:
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    if not finite:
        raise RepulseError(
            f"the loss is no longer a number in epoch {epoch + 1}, step {step}: training stopped, and the last good "
            "checkpoint is kept. Try a smaller learning rate or clip_norm"
        )


def _sum_over_processes(sums: Tensor, fabric: Fabric) -> Tensor:
    total = fabric.all_reduce(sums, reduce_op="sum")
    return total if isinstance(total, Tensor) else sums


def _processes_on_this_node() -> int:
    import os

    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
