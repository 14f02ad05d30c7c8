"""Models of RobustBench's zoo, by their names, where that package is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from repulse.common.errors import RepulseError, one_line
from repulse.common.registry import unknown_name


def from_robustbench(name: str) -> nn.Module:
    """A model of the zoo: `NAME`, or where several have it `DATASET/NAME` or `DATASET/THREAT/NAME`.

    Raises:
        RepulseError: if robustbench is not installed; there is no such model, or several; or it cannot be fetched.
    """
    spec = f"robustbench:{name}"
    try:
        from robustbench.model_zoo import model_dicts
        from robustbench.utils import load_model
    except ImportError as error:
        what = "robustbench" if (error.name or "").startswith("robustbench") else f"{error.name} beside robustbench"
        raise RepulseError(
            f"{spec} needs {what}: pip install git+https://github.com/RobustBench/robustbench"
        ) from error
    except Exception as error:
        raise RepulseError(f"{spec}: importing robustbench raised {one_line(error)}") from error
    known = list(_places(model_dicts))
    *ahead, last = name.split("/")
    found = [place for place in known if place[-1] == last and all(_among(part, place[:2]) for part in ahead)]
    if not found:
        raise unknown_name("model of RobustBench", name, {place[-1] for place in known})
    if len(found) > 1:
        names = " or ".join(f"robustbench:{'/'.join(place)}" for place in found)
        raise RepulseError(f"RobustBench has {len(found)} models {last}: give {names}")
    dataset, threat, model = found[0]
    try:
        loaded: nn.Module = load_model(model_name=model, dataset=dataset, threat_model=threat)
    except Exception as error:  # Without a network, or where its weights have moved.
        raise RepulseError(f"{spec} cannot be loaded, or fetched over the network: {one_line(error)}") from error
    return loaded


def _places(zoo: Mapping[Any, Mapping[Any, Iterable[str]]]) -> Iterator[tuple[str, str, str]]:
    for dataset, threats in zoo.items():
        for threat, models in threats.items():
            for model in models:
                yield _word(dataset), _word(threat), model


def _word(part: Any) -> str:
    return str(getattr(part, "value", part))


def _among(part: str, words: Iterable[str]) -> bool:
    return part.lower() in (word.lower() for word in words)
