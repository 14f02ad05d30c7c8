"""Read a file of pickled objects, which runs whatever code it holds, and keep its weights as safetensors.

    python -m repulse.models.foreign.convert IN.pt OUT.safetensors

Run it in a process of its own, and only on files whose author you trust; the packages that its objects come from must
be installed. Nothing else in this package reads such files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError, one_line
from repulse.common.files import save_tensors
from repulse.models.foreign.checkpoints import described, weight_sets


def convert(source: Path, target: Path) -> int:
    """Write the weights of `source` to `target`; returns how many tensors there are.

    Raises:
        RepulseError: if it cannot be read, or holds no weights.
    """
    try:
        saved = torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:
        raise RepulseError(f"{source} cannot be read: {one_line(error)}") from error
    found: dict[str, Tensor] = {}
    for place, state in weight_sets(_without_modules(saved)):
        for name, value in state.items():
            if isinstance(value, Tensor):
                # Tensors may share memory, which safetensors refuses.
                found[f"{place}.{name}" if place else name] = value.detach().clone().contiguous()
    if not found:
        raise RepulseError(f"{source} holds {described(saved)}")
    save_tensors(target, found)
    return len(found)


def _without_modules(saved: object) -> object:
    if isinstance(saved, nn.Module):
        return saved.state_dict()
    return {key: _without_modules(value) for key, value in saved.items()} if isinstance(saved, dict) else saved


if __name__ == "__main__":
    try:
        _, given, wanted = sys.argv
        print(f"written: {wanted} ({convert(Path(given), Path(wanted))} tensors)")  # noqa: T201
    except (RepulseError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
