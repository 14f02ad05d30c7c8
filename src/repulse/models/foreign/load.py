"""Somebody else's model, from what its author gives away: a factory, a program, a name, weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repulse.common.errors import RepulseError, first_line
from repulse.models.foreign.factories import from_factory
from repulse.models.foreign.hubs import from_timm
from repulse.models.foreign.programs import PROGRAM_SUFFIXES, Program, load_program
from repulse.models.foreign.weights import load_weights
from repulse.models.foreign.wrappers import Normalised

FORMS = (
    "package.module:factory, path/to/file.py:factory, timm/NAME, "
    "a TorchScript file (.pt, .ts) or an exported program (.pt2)"
)


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
            that returns a module, or a module; the current folder can be imported from. Or `timm/NAME`. Or the path of
            a TorchScript file, or of a program saved by `torch.export.save`.
        weights: a state dict to load, `.safetensors` or what `torch.save` wrote. Names that only differ by what
            wrappers put before them fit.
        weights_key: which set of weights to take where the file holds several, such as 'model_ema'; None: a running
            average if there is one, which is said.
        classes: number of outputs of a timm model; None: its own. Other models have the outputs that they have.
        mean: subtracted from each channel before the model sees it; one value serves all channels; None: 0.
        std: divides each channel after that; > 0; None: 1. A timm model with its own pretrained weights gets their
            mean and std where neither is given.
        device: where the model goes.

    Raises:
        RepulseError: if the spec is not understood; the module or its factory is not there, or fails, or gives
            something else; a file is not what it should be; weights don't fit; timm or the device is not available;
            or std is not positive.
    """
    place = _device(device)
    if weights_key is not None and weights is None:
        raise RepulseError("a key of weights needs a file of weights")
    module, _, attribute = spec.rpartition(":")
    if spec.startswith("timm/"):
        pretrained = weights is None
        model = from_timm(spec.removeprefix("timm/"), classes, pretrained=pretrained)
        if pretrained and mean is None and std is None:
            about: Any = getattr(model, "pretrained_cfg", None) or {}
            mean, std = about.get("mean"), about.get("std")
    elif module and all(part.isidentifier() for part in attribute.split(".")):
        model = from_factory(spec, module, attribute)
    elif Path(spec).suffix in PROGRAM_SUFFIXES or Path(spec).is_file():
        if Path(spec).suffix == ".py":
            raise RepulseError(f"{spec} may define many things; say which makes the model: {spec}:factory")
        model = load_program(Path(spec), place)
    else:
        raise RepulseError(f"cannot tell what model {spec!r} is; give {FORMS}")
    if weights is not None:
        load_weights(model.program if isinstance(model, Program) else model, Path(weights), weights_key)
    if mean is not None or std is not None:
        model = Normalised(model, (0.0,) if mean is None else mean, (1.0,) if std is None else std)
    return model.to(place).eval()


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise RepulseError(f"cannot use device {str(device)!r}: {first_line(error)}") from error
