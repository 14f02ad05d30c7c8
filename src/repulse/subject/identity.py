"""What decides an outcome: exact keys for what is kept on disk, and how one evaluation is told from another."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.attack import attackable
from repulse.common.files import sha256_of
from repulse.common.seeding import derive_seed

SAMPLE = 64
"""How many images a model is asked about to know it again."""

# Of the spread of the answers: another batch size or thread count changes float32 by less, any other model by more.
_ROUNDING = 1e-4


def exact_words(value: Any) -> str:
    """What a value is made of, to the last digit, the same in every process: attacks, threats, objectives, tensors.

    Functions count with what they close over, modules by their class: which model it is decides the evaluation.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = (f"{each.name}={exact_words(getattr(value, each.name))}" for each in fields(value))
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(exact_words, value))})"
    if isinstance(value, Tensor):
        return sha256_of(value)
    if isinstance(value, functools.partial):
        return exact_words((value.func, value.args, tuple(sorted(value.keywords.items()))))
    if isinstance(value, types.FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or ()]
        if hasattr(value, "__wrapped__"):
            # Some decorators keep what they wrap elsewhere.
            inside.append(value.__wrapped__)
        return f"{value.__module__}.{value.__qualname__}{exact_words(inside) if inside else ''}"
    return repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__qualname__


@dataclass(frozen=True, eq=False)
class Identity:
    """What an evaluation is of: an interrupted one goes on only where it is the same.

    Args:
        parts: what must be equal, by what a message calls it.
        answers: what the model says about a few images; equal up to rounding.
        wobble: by how much each of the answers differs when asked twice.
    """

    parts: Mapping[str, str]
    answers: Mapping[str, Tensor] = field(default_factory=dict)
    wobble: float = 0.0

    @property
    def digest(self) -> str:
        """Short, for names of folders."""
        return sha256_of(*(f"{name}={value}|".encode() for name, value in sorted(self.parts.items())))[:8]

    def differences(self, parts: Mapping[str, str], answers: Mapping[str, Tensor]) -> list[str]:
        """What is not the same as in another one, in words; empty where both are one."""
        changed = [name for name in sorted({*self.parts, *parts}) if self.parts.get(name) != parts.get(name)]
        for name in sorted({*self.answers, *answers}):
            ours, theirs = self.answers.get(name), answers.get(name)
            if ours is None or theirs is None or not self._alike(ours, theirs):
                changed.append(name)
        return changed

    def _alike(self, ours: Tensor, theirs: Tensor) -> bool:
        if ours.shape != theirs.shape:
            return False
        finite = ours[ours.isfinite()]
        spread = float(finite.max() - finite.min()) if len(finite) else 0.0
        allowed = _ROUNDING * spread + 3 * self.wobble
        return torch.allclose(ours, theirs, rtol=1e-6, atol=allowed, equal_nan=True)


def answers_of(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    device: torch.device,
    training_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[dict[str, Tensor], float]:
    """What a model computes on a fixed sample of the images, in evaluation mode, and how far two calls differ.

    Weights are not all that decides this: plain attributes, constants in code and buffers that no state dict holds do
    too. A model that cannot be asked gives nothing here; whoever measures it says why.

    Args:
        model: maps images to logits.
        images: all images.
        labels: their classes.
        device: where the model is.
        training_loss: on embeddings, for models with `embed`.
    """
    rows = torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().long()
    x, y = images[rows].to(device), labels[rows].to(device)

    def ask() -> dict[str, Tensor]:
        torch.manual_seed(derive_seed(0, "identity"))
        found = {"the model's answers": model(x)}
        if training_loss is not None:
            found["the training loss"] = training_loss(model.embed(x), y)  # type: ignore[operator]
        return {name: value.detach().float().cpu().clone() for name, value in found.items()}

    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), attackable(model), torch.no_grad():
            first, second = ask(), ask()
    except Exception:
        # Somebody else's model may fail in any way; the checks of how it is used say it in one line.
        return {}, 0.0
    differ = [float((first[name] - second[name]).abs().nan_to_num().max()) for name in first]
    # Coarse arithmetic rounds coarsely: TF32 on a GPU, half precision anywhere.
    kinds = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    epsilon = max([torch.finfo(kind).eps for kind in kinds] + [2.0**-10 if device.type == "cuda" else 0.0])
    coarse = max(float(value.abs().max()) for value in first.values()) * 4 * epsilon if epsilon > 1e-6 else 0.0
    return first, max([*differ, coarse])
