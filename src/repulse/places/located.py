"""From what somebody calls a model to the folder that it lies in."""

from __future__ import annotations

from pathlib import Path

from repulse.places.hub import fetched
from repulse.places.zoo import zoo_folder


def is_local(place: str | Path) -> bool:
    """Whether it is a folder of one's own: neither `zoo:NAME` nor `hub:NAME`."""
    return not str(place).startswith(("zoo:", "hub:"))


def located(place: str | Path) -> Path:
    """The folder of a model: a run folder; `zoo:NAME`; `hub:ORG/NAME`, downloaded if it is not in the cache.

    `hub:` and a folder is that folder, as `Classifier.save_pretrained` writes it.

    Raises:
        RepulseError: if the zoo or the Hub has none of that name, or the Hub cannot be reached.
    """
    kind, _, name = str(place).partition(":")
    if is_local(place):
        return Path(place).expanduser()
    return zoo_folder(name) if kind == "zoo" else fetched(name)
