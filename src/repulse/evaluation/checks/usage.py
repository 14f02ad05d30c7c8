"""Is the model used as it was meant to be? Checks of inputs, labels and outputs before anything is attacked.

Most figures that are wrong by a lot are wrong for one of these reasons, and none has to do with robustness. Each check
measures one figure and says in one sentence what was seen and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks.attack import attackable, checked_logits
from repulse.common.errors import RepulseError
from repulse.common.units import in_percent
from repulse.evaluation.expectation import is_random
from repulse.evaluation.record import CheckRecord

# How many images the other ways to scale the inputs are tried on.
IMAGES = 256

# An order of the classes needs images of every class; of a thousand classes fewer each, or the checks would cost more
# than the attacks.
PER_CLASS = 20
MOST_IMAGES = 2048

# Of the logits of an image alone and in a batch, relative to the spread of the logits.
BATCH_TOLERANCE = 1e-3

# By how much another reading must beat the one that was given; see `_much_better`.
MUCH_BETTER = 0.2

_BATCH = 64
_OWN = "repulse: how the model is used"


def check_use(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    *,
    device: torch.device | str,
    classes: int | None = None,
) -> tuple[CheckRecord, ...]:
    """Ask of a model, its images and its labels whether they belong together.

    In this order: `class-count`, `logits-not-probabilities`, `inputs-scaled-right`, `labels-fit`,
    `better-than-chance`, `evaluation-mode`, `no-batch-dependence`. Where a question cannot be asked, `passed` is None.

    Args:
        model: maps images to logits (N, n); it is asked in evaluation mode, and left in the mode it was in.
        images: clean images, pixels in [0, 1].
        labels: true classes, from 0.
        device: where the model is.
        classes: how many classes the data has; None: as many as its labels name.

    Raises:
        RepulseError: if nothing can be measured: there are no images, labels are impossible, the model does not take
            the images, or not one alone, gives something else than finite logits, or has too few outputs.
    """
    if not len(images):
        raise RepulseError("there are no images to measure")
    if int(labels.min()) < 0:
        raise RepulseError(f"labels must not be negative, got {int(labels.min())}")
    counted = max(classes or 0, int(labels.max()) + 1)
    trained = _in_training_mode(model)
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(cuda), attackable(model), torch.inference_mode():
        torch.manual_seed(0)
        seen = _ask(model, images.cpu(), labels.cpu(), torch.device(device), counted)
        return (
            _class_count(seen),
            _probabilities(seen),
            _scaling(seen),
            _labels(seen),
            _chance(seen),
            _mode(trained),
            _batch_dependence(seen),
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """A sample of the images, and what the model makes of it."""

    model: nn.Module
    images: Float[Tensor, "m *shape"]
    """The first of the sample, at most `IMAGES`, on the model's device."""
    labels: Int64[Tensor, "M"]
    logits: Float[Tensor, "M n"]
    classes: int
    precision: float
    """The smallest step from 1 in the arithmetic of the model."""

    @cached_property
    def predicted(self) -> Int64[Tensor, "M"]:
        return self.logits.argmax(1)

    @cached_property
    def right(self) -> Bool[Tensor, "M"]:
        return self.predicted == self.labels


def _ask(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device, classes: int) -> _Seen:
    count = min(max(PER_CLASS * classes, IMAGES), MOST_IMAGES)
    # Drawn, not the first ones: folders are often sorted by class.
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    first = _first_answer(model, images[rows[:2]].to(device), labels, classes)
    found = []
    for part in torch.split(rows, _BATCH):
        x = images[part].to(device)
        try:
            found.append(checked_logits(model(x), labels[:0]).float().cpu())
        except RuntimeError as error:
            raise _refused(model, x, error) from error
    some = images[rows[:IMAGES]].to(device)
    # GPUs multiply float32 with the 10 bits of TF32 where they may.
    precision = max(torch.finfo(first.dtype).eps, 2**-10 if device.type == "cuda" else 0.0)
    return _Seen(model, some, labels[rows], torch.cat(found), classes, precision)


def _first_answer(model: nn.Module, x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The logits of very few images, if attacks can mean anything on them.

    Raises:
        RepulseError: see `check_use`.
    """
    try:
        logits = model(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise _refused(model, x, error) from error
    if not isinstance(logits, Tensor):
        raise RepulseError(
            f"the model must give a tensor of logits, got {type(logits).__name__}; wrap it in a module that returns "
            "the logits alone"
        )
    if not logits.is_floating_point():
        raise RepulseError(f"the model must give logits, got {logits.dtype}; return what the argmax is taken of")
    checked_logits(logits, labels[:0])
    if logits.shape[0] != len(x):
        raise RepulseError(f"the model gives {logits.shape[0]} rows of logits for {len(x)} images")
    outputs = logits.shape[1]
    if int(labels.min()) == 1 and int(labels.max()) == outputs:
        raise RepulseError(
            f"labels run from 1 to {outputs}, but classes count from 0 to {outputs - 1}: subtract 1 from every label"
        )
    if outputs == 1:
        raise RepulseError("the model gives one output per image; for two classes let it return two, such as 0 and z")
    if outputs < classes:
        raise RepulseError(
            f"the model gives {outputs} outputs, but the data has {classes} classes; "
            "give the model that was made for this data"
        )
    try:
        model(x[:1])
    except (RuntimeError, ValueError) as error:
        raise RepulseError(
            f"the model takes a batch of images but not one alone ({_first_line(error)}): its answers depend on the "
            "other images in the batch; keep running statistics in its normalisation layers"
        ) from error
    return logits


def _refused(model: nn.Module, x: Tensor, error: Exception) -> RepulseError:
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    hint = ""
    if kinds and x.dtype not in kinds:
        hint = f"; its weights are {', '.join(sorted(map(str, kinds)))}, the images {x.dtype}: convert it by .float()"
    return RepulseError(f"the model does not take images of shape {tuple(x.shape)}: {_first_line(error)}{hint}")


def _class_count(seen: _Seen) -> CheckRecord:
    outputs = seen.logits.shape[1]
    if outputs == seen.classes:
        sentence = f"The model has one output for each of the {outputs} classes."
    else:
        sentence = (
            f"The model has {outputs} outputs, but the data has {seen.classes} classes: images given to the other "
            "outputs count as errors. Use a model made for these classes, or keep their outputs only."
        )
    return CheckRecord(
        name="class-count",
        question="Does the model have as many outputs as the data has classes?",
        passed=outputs == seen.classes,
        serious=False,
        measured=float(outputs),
        threshold=float(seen.classes),
        unit="count",
        sentence=sentence,
        source=_OWN,
    )


def _probabilities(seen: _Seen) -> CheckRecord:
    sums = seen.logits.sum(1)
    probabilities = (seen.logits >= -1e-6).all(1) & ((sums - 1).abs() <= 1e-3)
    logarithms = (seen.logits <= 1e-6).all(1) & (seen.logits.logsumexp(1).abs() <= 1e-3)
    share = _share(probabilities) if seen.logits.shape[1] > 1 else 0.0
    # A few rows of logits may add up to 1 by accident; all of them do not.
    passed = share < 0.99
    if not passed:
        sentence = (
            "The outputs are probabilities. Remove the softmax at the end of the model: with it, attacks on "
            "cross-entropy get a gradient that is squashed twice, and find less than there is."
        )
    elif _share(logarithms) >= 0.99:
        sentence = "The outputs are logarithms of probabilities, which serve attacks as well as logits do."
    else:
        sentence = "The outputs are not probabilities, so attacks get the gradient of the logits themselves."
    return CheckRecord(
        name="logits-not-probabilities",
        question="Does the model give logits, not probabilities?",
        passed=passed,
        serious=False,
        measured=share,
        threshold=0.99,
        sentence=sentence,
        source="AutoAttack's own checks; Croce & Hein 2020",
    )


@dataclass(frozen=True)
class _Scaling:
    """Another way to scale the inputs: `(x - mean) / std`, with the channels turned round or not."""

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    reversed_channels: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        x = x.flip(1) if self.reversed_channels else x
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    @property
    def remedy(self) -> str:
        """What the user does to get it."""
        flags = [
            f"--{flag} {','.join(f'{value:.6g}' for value in values)}"
            for flag, values, plain in (("mean", self.mean, 0.0), ("std", self.std, 1.0))
            if set(values) != {plain}
        ]
        steps = ["turn the channels round inside the model (RGB to BGR: `x.flip(1)`)"] if self.reversed_channels else []
        steps += [f"use `{' '.join(flags)}`"] if flags else []
        return " and ".join(steps)


_CENTRED = _Scaling("in [-1, 1]", (0.5,), (0.5,))
_GREY_LEVELS = _Scaling("from 0 to 255", std=(1 / 255,))
_SHRUNK = _Scaling("divided by 255 once more", std=(255.0,))
_IMAGENET = _Scaling("normalised as for ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = _Scaling("normalised as for CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_BGR = _Scaling("in the order blue, green, red", reversed_channels=True)
# The mean of ImageNet in grey levels and BGR: what networks trained with Caffe want.
_CAFFE = _Scaling(
    "as Caffe's (BGR, 0 to 255, centred)",
    (103.939 / 255, 116.779 / 255, 123.68 / 255),
    (1 / 255,) * 3,
    reversed_channels=True,
)


def _scalings(images: Tensor) -> tuple[_Scaling, ...]:
    """The other ways to try, the plainest first; none for what is not a batch of images."""
    if images.ndim != 4:
        return ()
    found = [_CENTRED, _GREY_LEVELS, _SHRUNK]
    if images.shape[1] == 3:
        found += [_IMAGENET, _CIFAR, _BGR, _CAFFE]
    channels = images.transpose(0, 1).flatten(1)
    mean, std = channels.mean(1), channels.std(1, correction=0)
    if bool((std > 0).all()):
        own = [tuple(round(value, 4) for value in values.tolist()) for values in (mean, std.clamp_min(1e-4))]
        found.append(_Scaling("normalised by their own mean and standard deviation", own[0], own[1]))
    return tuple(found)


def _scaling(seen: _Seen) -> CheckRecord:
    right = seen.right[: len(seen.images)]
    tried = {scaling: _right_when(seen, scaling) for scaling in _scalings(seen.images)}
    record = CheckRecord(
        name="inputs-scaled-right",
        question="Does the model get its images in the range that it was trained on?",
        passed=None,
        serious=True,
        threshold=MUCH_BETTER,
        sentence="The inputs are not images, so other ways to scale them were not tried.",
        source=_OWN,
    )
    if not tried:
        return record
    # The first of several that are as good is the plainest.
    best = max(tried, key=lambda scaling: _share(tried[scaling]))
    gain = max(_share(tried[best]) - _share(right), 0.0)
    passed = not _much_better(tried[best], right)
    if passed:
        sentence = f"None of {len(tried)} other ways to scale the images fits the model much better."
    else:
        sentence = (
            f"The model is right on {in_percent(_share(right))} of the images as they are, but on "
            f"{in_percent(_share(tried[best]))} when they are {best.name}: {best.remedy}."
        )
    return record.model_copy(update={"passed": passed, "measured": gain, "sentence": sentence})


def _right_when(seen: _Seen, scaling: _Scaling) -> Bool[Tensor, "m"]:
    found = []
    try:
        for part in torch.split(seen.images, _BATCH):
            logits = seen.model(scaling(part)).float().cpu()
            found.append(torch.where(logits.isfinite().all(1), logits.argmax(1), -1))
    except Exception:  # A model may refuse what is out of its range in any way it likes.
        return torch.zeros(len(seen.images), dtype=torch.bool)
    return torch.cat(found) == seen.labels[: len(seen.images)]


def _labels(seen: _Seen) -> CheckRecord:
    readings: dict[str, Tensor] = {
        "they are one too high; subtract 1 from every label": seen.predicted == seen.labels - 1,
        "they are one too low; add 1 to every label, or drop the model's first output": (
            seen.predicted == seen.labels + 1
        ),
    }
    best = max(readings, key=lambda reading: _share(readings[reading]))
    right, better = seen.right, readings[best]
    order, judged = _best_order(seen)
    # Chosen on one half of the images and judged on the other, or an order would fit by its many choices.
    reordered = order[seen.predicted[judged]] == seen.labels[judged]
    if _much_better(reordered, seen.right[judged]) and _share(reordered) > _share(better[judged]) + 0.05:
        best, right, better = _describe(order), seen.right[judged], reordered
    passed = not _much_better(better, right)
    gain = max(_share(better) - _share(right), 0.0)
    if passed:
        sentence = "Neither labels that count from 1 nor classes in another order fit the model much better."
    else:
        sentence = (
            f"The model is right on {in_percent(_share(right))} of the images with these labels, but would be on "
            f"{in_percent(_share(better))} with others: {best}."
        )
    return CheckRecord(
        name="labels-fit",
        question="Do the labels number the classes as the model does?",
        passed=passed,
        serious=True,
        measured=gain,
        threshold=MUCH_BETTER,
        sentence=sentence,
        source=f"{_OWN}; best assignment: Kuhn 1955",
    )


def _best_order(seen: _Seen) -> tuple[Int64[Tensor, "n"], Bool[Tensor, "M"]]:
    """The label that fits each output best on half of the images, -1 for none; and which images are the other half."""
    judged = torch.arange(len(seen.labels)) % 2 == 1
    outputs = seen.logits.shape[1]
    counts = torch.zeros(seen.classes, outputs, dtype=torch.int64)
    counts.index_put_(
        (seen.labels[~judged], seen.predicted[~judged]), torch.ones(1, dtype=torch.int64), accumulate=True
    )
    from scipy.optimize import linear_sum_assignment

    label, output = linear_sum_assignment(counts.numpy(), maximize=True)
    order = torch.full((outputs,), -1)
    chosen, fitting = torch.from_numpy(output), torch.from_numpy(label)
    # Where no image speaks for a pair, it was picked only because something had to be.
    spoken = counts[fitting, chosen] > 0
    order[chosen[spoken]] = fitting[spoken]
    return order, judged


def _describe(order: Tensor) -> str:
    moved = [(output, label) for output, label in enumerate(order.tolist()) if label not in (-1, output)]
    some = ", ".join(f"{output} is label {label}" for output, label in moved[:3])
    return (
        f"the classes are in another order (the model's output {some}{', ...' if len(moved) > 3 else ''}); "
        "name the classes in the order in which the model was trained"
    )


def _chance(seen: _Seen) -> CheckRecord:
    commonest = float(seen.labels.bincount().max()) / len(seen.labels)
    threshold = commonest + 2 * (commonest * (1 - commonest) / len(seen.labels)) ** 0.5
    measured = _share(seen.right)
    passed = measured > threshold if threshold < 1 else None
    if passed is None:
        sentence = "There are too few images, or too few classes among them, to tell the model from chance."
    elif passed:
        sentence = f"The model is right on {in_percent(measured)} of the images, more than a guess would be."
    else:
        sentence = (
            f"The model is right on {in_percent(measured)} of the images, no better than always naming the commonest "
            "class. Make sure that the weights were loaded, and that images and labels are those it was made for."
        )
    return CheckRecord(
        name="better-than-chance",
        question="Does the model know the data at all?",
        passed=passed,
        serious=False,
        measured=measured,
        threshold=min(threshold, 1.0),
        sentence=sentence,
        source=_OWN,
    )


def _in_training_mode(model: nn.Module) -> list[str]:
    """The kinds of layer that are in training mode and behave differently there."""
    return sorted(
        {
            name
            for module in model.modules()
            if getattr(module, "training", False)
            for name in [str(getattr(module, "original_name", type(module).__name__))]
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
            or name.startswith(("BatchNorm", "SyncBatchNorm", "Dropout", "AlphaDropout"))
        }
    )


def _mode(layers: Sequence[str]) -> CheckRecord:
    if layers:
        sentence = (
            f"The model was handed over in training mode, with {', '.join(layers)} inside. It is measured in "
            "evaluation mode here; call `model.eval()` wherever else it is used."
        )
    else:
        sentence = "No layer that behaves differently in training was left in training mode."
    return CheckRecord(
        name="evaluation-mode",
        question="Was the model handed over in evaluation mode?",
        passed=not layers,
        serious=False,
        measured=float(len(layers)),
        threshold=0.0,
        unit="count",
        sentence=sentence,
        source="PyTorch's documentation of torch.nn.Module.eval",
    )


def _batch_dependence(seen: _Seen) -> CheckRecord:
    batch = seen.images[:_BATCH]
    # Sums are ordered differently in batches of another size, and bfloat16 rounds each at the third digit.
    threshold = max(BATCH_TOLERANCE, 8 * seen.precision)
    record = CheckRecord(
        name="no-batch-dependence",
        question="Does the answer for an image leave aside the other images of its batch?",
        passed=None,
        serious=True,
        threshold=threshold,
        unit="value",
        sentence="There is one image only, so it has no neighbours to depend on.",
        source="PyTorch's documentation of BatchNorm (track_running_stats); RobustBench: Croce et al. 2021",
    )
    if len(batch) < 2:
        return record
    if is_random(seen.model, batch):
        return record.model_copy(
            update={"sentence": "The model throws dice, so that its answers differ for any batch; this was not asked."}
        )
    together = seen.model(batch)
    alone = torch.cat([seen.model(image[None]) for image in batch[:8]])
    spread = (together.amax() - together.amin()).clamp_min(1e-12)
    measured = float((alone - together[: len(alone)]).abs().amax() / spread)
    passed = measured <= threshold
    if passed:
        sentence = "Alone and in a batch, an image gets the same logits."
    else:
        sentence = (
            f"Alone, an image gets logits that differ by {measured:.2g} of their range from those in a batch, so no "
            "figure for single images exists. Normalise with running statistics, not with those of the batch."
        )
    return record.model_copy(update={"passed": passed, "measured": measured, "sentence": sentence})


def _much_better(other: Bool[Tensor, "M"], given: Bool[Tensor, "M"]) -> bool:
    """Whether one reading is right far more often than another on the same images, beyond chance.

    By 20 points; with half the errors, or three times as often right; and by three standard deviations of the images on
    which they differ (McNemar 1947), so that a handful of images is no proof.
    """
    ours, theirs = _share(other), _share(given)
    won, lost = int((other & ~given).sum()), int((given & ~other).sum())
    clear = (won - lost) ** 2 > 9 * (won + lost)
    return ours - theirs > MUCH_BETTER and (2 * (1 - ours) <= 1 - theirs or ours >= 3 * theirs) and clear


def _share(mask: Tensor) -> float:
    return mask.double().mean().item() if len(mask) else 0.0


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
