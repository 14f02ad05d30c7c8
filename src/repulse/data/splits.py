"""Which split to train on, and which to measure on."""

from __future__ import annotations

from collections.abc import Mapping

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.common.registry import unknown_name
from repulse.data.sources import Split

# What people call them, in any case.
_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}


def role(name: str) -> str | None:
    """What a split of this name is for: `train`, `test` or `validation`; None: its name does not say."""
    return next((found for found, names in _ROLES.items() if name.casefold() in names), None)


def choose_splits(
    splits: Mapping[str, Split], train: str | None, test: str | None, source: str, *, strict: bool
) -> tuple[str | None, str | None]:
    """The splits to train on and to measure on; None where there is none.

    Without a name, `test` is measured on, or else `validation`; a split whose labels are not known is passed over.

    Args:
        splits: all, by name.
        train: the one to train on, if it is given.
        test: the one to measure on, if it is given.
        source: what messages call the data.
        strict: whether a split of no usual name is an error even where it is not needed.

    Raises:
        RepulseError: if there is no such split, or it is not plain which is which.
    """
    training = _find(splits, train, source) if train is not None else _of_role(splits, "train", source)
    if test is not None:
        return training, _find(splits, test, source)
    measured = None
    rest = {name: split for name, split in splits.items() if name != training}
    for wanted in ("test", "validation"):
        found = _of_role(rest, wanted, source)
        if found is None or measured is not None:
            continue
        if unlabelled(splits[found]):
            notice(f"{splits[found].where}: the labels are not known, so it is not measured on; or give test_split")
        else:
            measured = found
    unknown = [name for name in rest if role(name) is None]
    if training is None and measured is None and len(unknown) == 1:
        return unknown[0], None
    if unknown and training is None and train is None:
        raise RepulseError(f"which split of {source}? It has {_listed(splits)}; give train_split and test_split")
    if unknown and (strict or measured is None):
        raise RepulseError(
            f"{source} has {_listed(unknown)} beside {training or measured}, which is no usual name of a split; give "
            "test_split, or move it away"
        )
    return training, measured


def unlabelled(split: Split) -> bool:
    """Whether the labels of a split are not known: all are -1."""
    return all(label == -1 for label in split.labels)


def _find(splits: Mapping[str, Split], wanted: str, source: str) -> str:
    if wanted in splits:
        return wanted
    found = [name for name in splits if name.casefold() == wanted.casefold()]
    if len(found) != 1:
        raise unknown_name(f"split of {source}", wanted, splits)
    return found[0]


def _of_role(splits: Mapping[str, Split], wanted: str, source: str) -> str | None:
    found = [name for name in splits if role(name) == wanted]
    if len(found) > 1:
        option = "train_split" if wanted == "train" else "test_split"
        raise RepulseError(f"which split of {source} is it, {' or '.join(found)}? Give {option}")
    return found[0] if found else None


def _listed(names: Mapping[str, Split] | list[str]) -> str:
    return ", ".join(names)
