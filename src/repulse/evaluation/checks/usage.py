"""Is the model used as it was meant to be? What is asked of inputs, labels and outputs before anything is attacked.

Most figures that are wrong by a lot are wrong for one of these reasons, and none has to do with robustness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks.attack import attackable, checked_logits
from repulse.common.errors import RepulseError, first_line
from repulse.evaluation.checks.check import checks_on
from repulse.evaluation.expectation import is_random
from repulse.evaluation.record import CheckRecord
from repulse.models.foreign.adapt import refused

# How many images the other ways to scale the inputs are tried on.
IMAGES = 256

# An order of the classes needs images of every class; of a thousand classes fewer each, or the checks would cost more
# than the attacks.
PER_CLASS = 20
MOST_IMAGES = 2048

BATCH = 64


def check_use(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    *,
    device: torch.device | str,
    classes: int | None = None,
    class_names: Sequence[str] = (),
) -> tuple[CheckRecord, ...]:
    """Ask of a model, its images and its labels whether they belong together: every check that looks at `Usage`.

    Args:
        model: maps images to logits (N, n); it is asked in evaluation mode, and left in the mode it was in.
        images: clean images, pixels in [0, 1].
        labels: true classes, from 0.
        device: where the model is.
        classes: how many classes the data has; None: as many as it has names, or as its labels name.
        class_names: names of the classes, for advice about their order.

    Returns:
        One record for each check; where it cannot be asked, `passed` is None and the sentence says why.

    Raises:
        RepulseError: if nothing can be measured: there are no images, labels are impossible, the model does not take
            the images, or not one alone, gives something else than finite logits, or has too few outputs.
    """
    if not len(images):
        raise RepulseError("there are no images to measure")
    if int(labels.min()) < 0:
        raise RepulseError(f"labels must not be negative, got {int(labels.min())}")
    counted = max(classes or len(class_names), int(labels.max()) + 1)
    layers = _in_training_mode(model)
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(cuda), attackable(model), torch.no_grad():
        torch.manual_seed(0)
        usage = _ask(model, images.cpu(), labels.cpu(), torch.device(device), counted, tuple(class_names), layers)
        return tuple(check.answer(name, usage) for name, check in checks_on(Usage).items())


@dataclass(frozen=True, eq=False)
class Usage:
    """A sample of the images, and what the model makes of it; for M images, of which m are tried in other ways."""

    about: ClassVar[Literal["use"]] = "use"
    model: nn.Module
    images: Float[Tensor, "m *shape"]
    """The first of the sample, at most `IMAGES`, on the model's device."""
    labels: Int64[Tensor, "M"]
    logits: Float[Tensor, "M n"]
    classes: int
    class_names: tuple[str, ...]
    precision: float
    """The smallest step from 1 in the arithmetic of the model."""
    training_layers: tuple[str, ...]
    """The kinds of layer that were in training mode and behave differently there."""

    @cached_property
    def predicted(self) -> Int64[Tensor, "M"]:
        """The class that the model names."""
        return self.logits.argmax(1)

    @cached_property
    def right(self) -> Bool[Tensor, "M"]:
        """Where that is the label."""
        return self.predicted == self.labels

    @cached_property
    def stochastic(self) -> bool:
        """Whether the model answers the same question in two ways."""
        return is_random(self.model, self.images[:BATCH])


def _ask(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    classes: int,
    class_names: tuple[str, ...],
    training_layers: tuple[str, ...],
) -> Usage:
    count = min(max(PER_CLASS * classes, IMAGES), MOST_IMAGES)
    # Drawn, not the first ones: folders are often sorted by class.
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    first = _first_answer(model, images[rows[:2]].to(device), labels, classes)
    found = []
    for part in torch.split(rows, BATCH):
        x = images[part].to(device)
        try:
            found.append(checked_logits(model(x), labels[:0]).float().cpu())
        except RepulseError:
            raise
        except Exception as error:
            raise refused(model, x, error) from error
    some = images[rows[:IMAGES]].to(device)
    held = [*model.parameters(), *model.buffers()]
    kinds = {first.dtype, *(each.dtype for each in held if each.is_floating_point())}
    # GPUs multiply float32 with the 10 bits of TF32 where they may.
    precision = max(*(torch.finfo(kind).eps for kind in kinds), 2**-10 if device.type == "cuda" else 0.0)
    return Usage(model, some, labels[rows], torch.cat(found), classes, class_names, precision, training_layers)


def _first_answer(model: nn.Module, x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The logits of very few images, if attacks can mean anything on them.

    Raises:
        RepulseError: see `check_use`.
    """
    try:
        logits = model(x)
    except RepulseError:
        raise
    except Exception as error:  # Somebody else's code may raise what it likes.
        raise refused(model, x, error) from error
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
    except Exception as error:
        raise RepulseError(
            "the model takes a batch of images but not one alone "
            f"({first_line(error.__cause__ or error)}): its answers depend on the other images in the batch; "
            "keep running statistics in its normalisation layers"
        ) from error
    return logits


def _in_training_mode(model: nn.Module) -> tuple[str, ...]:
    """The kinds of layer that are in training mode and behave differently there."""
    return tuple(
        sorted(
            {
                name
                for module in model.modules()
                if getattr(module, "training", False)
                for name in [str(getattr(module, "original_name", type(module).__name__))]
                if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)
                or name.startswith(("BatchNorm", "SyncBatchNorm", "Dropout", "AlphaDropout"))
            }
        )
    )


def surely_more(other: Bool[Tensor, "M"], given: Bool[Tensor, "M"], deviations: float) -> bool:
    """Whether one reading is right more often than another on the same images, beyond chance.

    By more than so many standard deviations of the images on which they differ (McNemar 1947), so that a handful of
    images is no proof, and many images see small differences.
    """
    won, lost = int((other & ~given).sum()), int((given & ~other).sum())
    return won > lost and (won - lost) ** 2 > deviations**2 * (won + lost)
