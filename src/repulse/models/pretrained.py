"""Weights that a backbone begins with: timm's own, or those of a file, but for a last layer of another size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError, one_line
from repulse.common.notice import notice
from repulse.models.foreign.checkpoints import described, read_checkpoint, weight_sets
from repulse.models.foreign.weights import prefixes

# Less than this share of the backbone's tensors is another network, not another last layer.
ENOUGH = 0.5


def begin_with(backbone: nn.Module, pretrained: bool | Path, name: str, channels: int, dimension: int) -> None:
    """Give a backbone weights to begin with, in place; what has no match of its own shape keeps its random start.

    Args:
        backbone: the network.
        pretrained: True: what timm has for it; a file: of `torch.save` or safetensors; False: nothing is done.
        name: of the backbone, `timm/NAME` where timm is to give the weights.
        channels: C of the images.
        dimension: d of the embeddings.

    Raises:
        RepulseError: if timm has none or cannot fetch them; or the file is absent, would run code when read, or is of
            another network.
    """
    if pretrained is False:
        return
    if pretrained is True:
        if not name.startswith("timm/"):
            raise RepulseError(f"backbone {name} comes without weights; give a file: --model.pretrained FILE")
        state, what = _timms(name.removeprefix("timm/"), channels, dimension), name
    else:
        saved, what = read_checkpoint(pretrained), str(pretrained)
        sets = list(weight_sets(saved))
        if not sets:
            raise RepulseError(f"{pretrained} holds {described(saved)}")
        own = backbone.state_dict()
        state = max((_matching(own, each) for _, each in sets), key=len)
    _load(backbone, state, what)


def last_layer(backbone: nn.Module) -> nn.Module:
    """The last of its layers that has weights of its own and is no normalisation: the one made for the embedding."""
    layers = [each for each in backbone.modules() if getattr(each, "weight", None) is not None]
    wide = [each for each in layers if isinstance(each.weight, Tensor) and each.weight.ndim > 1]
    return wide[-1] if wide else backbone


def _timms(name: str, channels: int, dimension: int) -> Mapping[str, Tensor]:
    import timm

    try:
        found: nn.Module = timm.create_model(name, pretrained=True, in_chans=channels, num_classes=dimension)
    except Exception as error:  # No weights, no network.
        raise RepulseError(
            f"the weights of timm/{name} cannot be had ({one_line(error)}); give a file: --model.pretrained FILE"
        ) from error
    return found.state_dict()


def _matching(own: Mapping[str, Tensor], saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """What of a saved set fits, by name and shape, under the prefix by which most does."""
    under = prefixes(own, saved).most_common(1)
    prefix = under[0][0] if under else ""
    inside = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
    return {
        name: value
        for name, value in inside.items()
        if name in own and isinstance(value, Tensor) and value.shape == own[name].shape
    }


def _load(backbone: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    own = backbone.state_dict()
    anew = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if len(state) < ENOUGH * len(own):
        raise RepulseError(f"{what} is of another network: {len(state)} of the backbone's {len(own)} tensors are there")
    broken = [name for name, value in state.items() if value.is_floating_point() and bool(torch.isnan(value).any())]
    if broken:
        raise RepulseError(f"{what} holds weights that are not numbers ({broken[0]}): its training diverged")
    backbone.load_state_dict(state, strict=False)
    if anew:
        notice(f"{what}: begun anew, since nothing there fits: {', '.join(anew[:3])}{', ...' if len(anew) > 3 else ''}")
