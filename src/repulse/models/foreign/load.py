"""Somebody else's model, from what its author gives away: a factory, a program, a name, weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from repulse.common.errors import RepulseError, first_line
from repulse.models.foreign.factories import from_factory
from repulse.models.foreign.files import kind_of_file
from repulse.models.foreign.hubs import from_timm
from repulse.models.foreign.onnx_files import OnnxModel, load_onnx
from repulse.models.foreign.programs import PROGRAM_SUFFIXES, Program, load_program
from repulse.models.foreign.robustbench_models import from_robustbench
from repulse.models.foreign.transformers_models import from_transformers
from repulse.models.foreign.weights import load_weights
from repulse.models.foreign.wrappers import Normalised

FORMS = (
    "package.module:factory, path/to/file.py:factory, timm/NAME, hf:ORG/NAME or hf:FOLDER, robustbench:NAME, "
    "a TorchScript file (.pt, .ts), an exported program (.pt2) or an ONNX file (.onnx)"
)

# Whoever names these names their weights, too.
_COMPLETE = ("hf:", "robustbench:")

TIMM = "timm/"


def is_named(spec: str) -> bool:
    """Whether a spec is the name of a library's model, whose weights come with it."""
    return spec.startswith((TIMM, *_COMPLETE))


class _Made(NamedTuple):
    model: nn.Module
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def load_foreign(
    spec: str,
    weights: str | Path | None = None,
    *,
    weights_key: str | None = None,
    classes: int | None = None,
    mean: Sequence[int | float] | None = None,
    std: Sequence[int | float] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The model that `spec` names, in evaluation mode, from pixels in [0, 1] to logits.

    Factories and programs are code of whoever wrote them, and run as such. Weights are not: they are read without
    running anything.

    Args:
        spec: `package.module:factory` or `path/to/file.py:factory`, where the factory is a function without arguments
            that returns a module, or a module; the current folder can be imported from. Or a name: `timm/NAME`;
            `hf:ORG/NAME` or `hf:FOLDER` for an image classifier of transformers, with the size, mean and std of its own
            processor inside; `robustbench:NAME`. Or the path of a TorchScript file, of a program saved by
            `torch.export.save`, or of an ONNX file.
        weights: a state dict to load, `.safetensors` or what `torch.save` wrote. Names that only differ by what
            wrappers put before them fit.
        weights_key: which set of weights to take where the file holds several, such as 'model_ema'; None: a running
            average if there is one, which is said.
        classes: number of outputs of a timm model; None: its own. Other models have the outputs that they have.
        mean: subtracted from each channel before the model sees it; one value serves all channels; None: 0.
        std: divides each channel after that; > 0; None: 1. A model of timm or transformers that brings its weights gets
            its own mean and std where neither is given.
        device: where the model goes.

    Raises:
        RepulseError: if the spec is not understood; the module or its factory is not there, or fails, or gives
            something else; a file is not what it should be; weights don't fit; timm or the device is not available;
            or std is not positive.
    """
    place = _device(device)
    if weights_key is not None and weights is None:
        raise RepulseError("a key of weights needs a file of weights")
    if weights is not None and spec.startswith(_COMPLETE):
        raise RepulseError(f"{spec} has weights of its own: leave --weights away, or give the code that makes it")
    model, own_mean, own_std = _made(spec, classes, place, pretrained=weights is None)
    if weights is not None:
        if isinstance(model, OnnxModel):
            raise RepulseError(f"{spec} has weights of its own: leave --weights away")
        load_weights(model.program if isinstance(model, Program) else model, Path(weights), weights_key)
    if mean is None and std is None:
        mean, std = own_mean, own_std
    if mean is not None or std is not None:
        model = Normalised(model, (0.0,) if mean is None else mean, (1.0,) if std is None else std)
    return model.to(place).eval()


def _made(spec: str, classes: int | None, place: torch.device, *, pretrained: bool) -> _Made:
    """The model that a spec names, and the mean and std that it comes with."""
    module, _, attribute = spec.rpartition(":")
    kind, _, name = spec.partition(":")
    if kind == "hf":
        return _Made(*from_transformers(name))
    if kind == "robustbench":
        return _Made(from_robustbench(name))
    if spec.startswith(TIMM):
        model = from_timm(spec.removeprefix(TIMM), classes, pretrained=pretrained)
        about: Any = getattr(model, "pretrained_cfg", None) or {}
        return _Made(model, about.get("mean"), about.get("std")) if pretrained else _Made(model)
    if module and all(part.isidentifier() for part in attribute.split(".")):
        return _Made(from_factory(spec, module, attribute))
    path = Path(spec)
    if path.suffix in PROGRAM_SUFFIXES or path.is_file():
        if path.suffix == ".py":
            raise RepulseError(f"{spec} may define many things; say which makes the model: {spec}:factory")
        return _Made(load_onnx(path) if kind_of_file(path) == "onnx" else load_program(path, place))
    raise RepulseError(f"cannot tell what model {spec!r} is; give {FORMS}")


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise RepulseError(f"cannot use device {str(device)!r}: {first_line(error)}") from error
