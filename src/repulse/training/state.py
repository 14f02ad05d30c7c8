"""The state of a training run as named tensors, so that it can be written without pickle and taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode
from repulse.training.averages import WeightAverage


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands after a whole number of epochs.

    Random numbers need no place here: order, augmentation and dropout are drawn from seeds that name the epoch.
    """

    epoch: int
    """Epochs that are done."""
    tensors: Mapping[str, Tensor]
    """`model/NAME`, `average/NAME` and `optimiser/INDEX/NAME`."""


def capture(epoch: int, model: nn.Module, optimiser: torch.optim.Optimizer, average: WeightAverage) -> TrainingState:
    """The state after `epoch` epochs; the tensors are shared with the model, so write or copy them before going on."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.average.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"optimiser/{index}/{name}"] = torch.as_tensor(value)
    return TrainingState(epoch, tensors)


def restore(state: TrainingState, model: nn.Module, optimiser: torch.optim.Optimizer, average: WeightAverage) -> None:
    """Put a captured state back, in place.

    Raises:
        RepulseError: if the state belongs to another network, optimiser or average.
    """
    try:
        model.load_state_dict(_part(state.tensors, "model/"))
    except RuntimeError as error:
        raise RepulseError("the checkpoint belongs to another network; start a new run folder") from error
    averages = _part(state.tensors, "average/")
    if averages.keys() != average.average.keys():
        raise RepulseError("the checkpoint was made with another weight average; start a new run folder")
    for name, value in averages.items():
        average.average[name].copy_(value)
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(state.tensors, "optimiser/").items():
        index, name = key.split("/", 1)
        entries.setdefault(int(index), {})[name] = value.clone()
    shapes = [parameter.shape for group in optimiser.param_groups for parameter in group["params"]]
    if any(value.ndim and value.shape != shapes[i] for i, each in entries.items() for value in each.values()):
        raise RepulseError("the checkpoint was made by another version, with its weights in another order; start anew")
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def averaged(model: nn.Module, average: WeightAverage) -> Iterator[None]:
    """Within this context the model has its averaged weights, and is in evaluation mode."""
    own = {name: value.clone() for name, value in model.state_dict().items()} if average.average else {}
    average.copy_to(model)
    try:
        with evaluation_mode(model):
            yield
    finally:
        if own:
            model.load_state_dict(own)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
