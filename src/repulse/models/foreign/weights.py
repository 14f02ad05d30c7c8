"""Weights into a model: the set of a checkpoint that fits, whatever wrappers put before its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.common.registry import unknown_name
from repulse.models.foreign.checkpoints import described, read_checkpoint, weight_sets

# Parts of names that wrappers add anywhere: DataParallel, torch.compile, DeepSpeed, FSDP, activation checkpointing.
_WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

# Parts of names of running averages of the weights, which is what papers measure where there are two sets.
_AVERAGES = ("ema", "swa", "averaged", "average", "avg")


def load_weights(model: nn.Module, path: str | Path, key: str | None = None) -> None:
    """Load a state dict, wherever in the file it is, and whatever wrappers put before its names.

    Of several sets of weights that fit, a running average is taken before the plain ones; which one, and what was
    ignored, is said on standard error.

    Args:
        model: the model to load it into.
        path: a file of `torch.save` or safetensors.
        key: the set of weights to take, by where it stands in the file: 'state_dict', 'model_ema', 'net.encoder';
            None: the one that fits.

    Raises:
        RepulseError: if the file is absent or cannot be read without running code, there is no set of that name,
            nothing in it fits, or a weight is not a number.
    """
    path = Path(path)
    saved = read_checkpoint(path)
    own = model.state_dict()
    candidates = [fit for place, state in weight_sets(saved) for fit in _fits(own, place, state)]
    if not candidates:
        raise RepulseError(f"{path} holds {described(saved)}")
    if key is not None:
        named = [each for each in candidates if key in (each.key, each.place)]
        if not named:
            raise unknown_name("set of weights", key, {each.key for each in candidates if each.key})
        candidates = named
    fitting = [each for each in candidates if not each.misfits]
    if not fitting:
        nearest = min(candidates, key=lambda each: each.distance)
        raise RepulseError(f"{path} does not fit the model: {nearest.misfits}{_longer_names(nearest)}")
    best = min(fitting, key=lambda each: (not each.is_average, len(each.key)))
    _say(path, best, fitting, key)
    broken = [name for name, value in best.weights.items() if isinstance(value, Tensor) and bool(value.isnan().any())]
    if broken:
        raise RepulseError(f"{path} holds weights that are not numbers ({_some(broken)}): its training diverged")
    model.load_state_dict(best.weights, strict=False)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A set of weights under the model's own names, and where it differs from what the model has."""

    key: str
    """Where it stands in the file, down to the prefix of its names."""
    place: str
    weights: dict[str, Any]
    ignored: tuple[str, ...]
    """Names in the same place that the model has no use for."""
    misfits: str
    distance: int

    @property
    def is_average(self) -> bool:
        parts = self.key.lower().replace(".", "_").split("_")
        return any(part in _AVERAGES for part in parts)


def prefixes(own: Iterable[str], names: Iterable[str]) -> Counter[str]:
    """Under which prefixes some names are those of a model, and how many of them are."""
    known, found = set(own), Counter[str]()
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in known:
                found["".join(f"{part}." for part in parts[:depth])] += 1
    return found


def _fits(own: Mapping[str, Any], place: str, state: Mapping[str, Any]) -> list[_Fit]:
    """The ways to read a mapping as the model's weights: under every prefix that fits, or else the nearest one."""
    plain = {_without_wrappers(name): name for name in own}
    named = {_without_wrappers(name): value for name, value in state.items()}
    if len(plain) < len(own) or len(named) < len(state):
        # Without the wrappers two names would be one.
        plain, named = {name: name for name in own}, dict(state)
    # A model that wraps another may be given the weights of what it wraps.
    first = {name.split(".")[0] for name in plain}
    inner = {name.partition(".")[2]: target for name, target in plain.items()} if len(first) == 1 else {}
    found = [_fit(own, plain, place, named, prefix) for prefix in dict.fromkeys(("", *prefixes(plain, named)))]
    found += [_fit(own, inner, place, named, "")] if inner and "" not in inner else []
    fitting = [each for each in found if not each.misfits]
    return fitting or [min(found, key=lambda each: each.distance)]


def _fit(own: Mapping[str, Any], plain: Mapping[str, str], place: str, named: Mapping[str, Any], prefix: str) -> _Fit:
    inside = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    outside = tuple(name for name in named if not name.startswith(prefix))
    # Counters of batches came with PyTorch 0.4.1, and evaluation doesn't use them.
    missing = [name for name in plain if name not in inside and not name.endswith("num_batches_tracked")]
    extra = [name for name in inside if name not in plain]
    reshaped = [name for name in plain if name in inside and _shape(inside[name]) != _shape(own[plain[name]])]
    problems = {
        "missing": [f"{plain[name]} {_shape(own[plain[name]])}" for name in missing],
        "unexpected": [f"{name} {_shape(inside[name])}" for name in extra] if missing or reshaped else [],
        "of another shape": [
            f"{name} {_shape(inside[name])}, the model's is {_shape(own[plain[name]])}" for name in reshaped
        ],
    }
    weights = {target: inside[name] for name, target in plain.items() if name in inside}
    return _Fit(
        key=".".join(part for part in (place, prefix.rstrip(".")) if part),
        place=place,
        weights=weights,
        ignored=(*extra, *outside),
        misfits="; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names),
        distance=len(missing) + len(extra) + len(reshaped) + len(outside),
    )


def _say(path: Path, best: _Fit, fitting: Sequence[_Fit], key: str | None) -> None:
    others = [each for each in fitting if each is not best and not _same(each.weights, best.weights)]
    if others and key is None:
        names = " or ".join(f"`--weights-key {each.key}`" for each in others if each.key)
        notice(
            f"{path} holds {len(others) + 1} sets of weights that fit; taken: {best.key or 'those outside'}; the "
            f"others: {names}"
        )
    taken = {name for each in fitting for name in each.weights}
    ignored = [name for name in best.ignored if not any(name.endswith(f".{other}") for other in taken)]
    if ignored:
        notice(f"{path}: {len(ignored)} entries are not the model's and were ignored: {_some(ignored)}")


def _same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    pairs = [(value, theirs.get(name)) for name, value in ours.items()]
    return all(isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b) for a, b in pairs)


def _longer_names(nearest: _Fit) -> str:
    return f" (those under {nearest.key})" if nearest.key else ""


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
