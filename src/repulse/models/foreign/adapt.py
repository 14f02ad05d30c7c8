"""What people call a model, as the module that everything here measures: from float32 images to logits (N, n)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from repulse.common.errors import RepulseError, first_line, one_line
from repulse.common.functions import as_module


def adapt_model(model: object) -> nn.Module:
    """A module that answers any batch of float32 images with a matrix of logits, or says in one line why it cannot.

    Taken as they are: functions; models that answer with a tuple, a mapping or an object that holds `logits`; models
    that squeeze a batch of one. A model of prototypes, with `embed` and `classify`, is returned unchanged.

    Args:
        model: a module, or any function of a batch of images.

    Raises:
        RepulseError: if it cannot be called; on a call, if the model raises anything, or answers without logits.
    """
    if isinstance(model, nn.Module):
        has_embedding = callable(getattr(model, "embed", None)) and callable(getattr(model, "classify", None))
        return model if has_embedding or isinstance(model, Adapted) else Adapted(model)
    return Adapted(as_module(model))


def original(model: nn.Module) -> nn.Module:
    """The model that was adapted; any other as it is."""
    return model.inner if isinstance(model, Adapted) else model


class Adapted(nn.Module):
    """Somebody else's model behind the interface that attacks know.

    Args:
        inner: maps images to logits, in its own way.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = getattr(inner, "training", False)

    def forward(self, x: Float[Tensor, "N *shape"]) -> Tensor:
        """Its logits; those of one image are a row, too."""
        try:
            answer = self.inner(x)
        except RepulseError:
            raise
        except Exception as error:  # Somebody else's code may raise what it likes.
            raise refused(self.inner, x, error) from error
        logits = logits_of(answer)
        if logits.ndim > 2 and all(size == 1 for size in logits.shape[2:]):
            logits = logits.flatten(1)
        return logits[None] if len(x) == 1 and logits.ndim == 1 and len(logits) > 1 else logits


def logits_of(answer: object) -> Tensor:
    """The logits in what a model answers: a tensor, or `logits` of an object or a mapping, or the first of a tuple.

    Raises:
        RepulseError: if there are none.
    """
    if isinstance(answer, Tensor):
        return answer
    inside = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if inside is None and isinstance(answer, tuple | list) and len(answer):
        inside = answer[0]
    if isinstance(inside, Tensor):
        return inside
    raise RepulseError(
        f"the model must give a tensor of logits, got {type(answer).__name__}; wrap it in a module that returns "
        "the logits alone"
    )


def refused(model: nn.Module, x: Tensor, error: BaseException) -> RepulseError:
    """What a model raised on a batch of images, as one line with its own words and what may help."""
    said = first_line(error) if isinstance(error, RuntimeError | ValueError | TypeError) else one_line(error)
    return RepulseError(
        f"the model does not take images of shape {tuple(x.shape)}: {said}{_hint(model, x, str(error))}"
    )


def _hint(model: nn.Module, x: Tensor, said: str) -> str:
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if kinds and x.dtype not in kinds:
        return f"; its weights are {', '.join(sorted(map(str, kinds)))}, the images {x.dtype}: convert it by .float()"
    if channels := re.search(r"to have (\d+) channels, but got (\d+) channels", said):
        if channels[1] == str(x.shape[-1]) != str(x.shape[1]):
            return "; images are (N, C, H, W), and these look like (N, H, W, C): permute their axes to 0, 3, 1, 2"
        return f"; `--channels {channels[1]}` may help" if channels[1] in ("1", "3") else ""
    # The words of timm's vision transformers.
    if size := re.search(r"[Ii]nput (?:height|width|size|image size).*\((\d+)(?:\D+\d+)?\)\.?$", said.strip()):
        return f"; `--image-size {size[1]}` brings the images to its size"
    if "ninitialized" in said and "arameter" in said:
        return "; let the code that makes the model call it once on a batch of images"
    if "out of memory" in said:
        return "; `--batch-size` takes fewer images at a time"
    return ""
