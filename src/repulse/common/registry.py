"""Things with names: one registry for each kind, with help for a name that is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from repulse.common.errors import RepulseError

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> RepulseError:
    """The error for a `name` that is not among the `known` ones: it suggests the nearest, and lists them all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return RepulseError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")


class Registry(Mapping[str, T]):
    """A mapping from names to things of one kind, filled by a decorator.

    >>> METHODS: Registry[Callable[[int], int]] = Registry("method")
    >>> @METHODS.register("double")
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> METHODS["double"](3)
    6

    Raises:
        RepulseError: on look-up of a name that is not registered.
        ValueError: on registering one name twice.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a thing to enter it under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        # A file may hold anything in place of a name, lists too.
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
