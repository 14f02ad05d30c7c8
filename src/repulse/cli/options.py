"""Commands from settings: every field of a settings class is a flag, a YAML key and a check, defined once.

A command's settings are made in layers, each over the one before: the class's defaults, a preset where the command has
presets, the YAML file named by `--config`, the flags. A field that is a choice (a loss, a recipe) has a flag for its
name, and one for every setting of every kind that is registered when the command is run.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from repulse.common.settings import (
    Choices,
    Names,
    Settings,
    choices_of,
    group_of,
    names_of,
    overlay,
    read_yaml,
    validate,
)

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Flag:
    """One setting as a flag: its dotted name, its type, what the help says, and whether `none` is a value."""

    dotted: str
    annotation: Any
    help: str
    default: Any = None
    is_choice: bool = False
    names: Names | None = None

    @property
    def key(self) -> str:
        """The name of the parameter in Python."""
        return self.dotted.replace(".", "__")

    @property
    def many(self) -> bool:
        """Whether several values may be given, one by one or separated by commas."""
        parts = (self.annotation, *typing.get_args(self.annotation))
        return any(typing.get_origin(part) is tuple for part in parts)

    def option(self) -> click.Option:
        """The flag for click."""
        flag = self.dotted.replace("_", "-")
        if self.annotation is bool:
            head, dot, last = flag.rpartition(".")
            return click.Option([f"--{flag}/--{head}{dot}no-{last}", self.key], default=None, help=self.help)
        # A choice is named by `--loss.name`, or in short by `--loss`.
        names = [f"--{flag}", f"--{flag.removesuffix('.name')}"] if self.is_choice else [f"--{flag}"]
        metavar = "NAME" if self.is_choice or self.names is not None else _metavar(self.annotation)
        metavar += ",..." if self.names is not None and self.names.many else ""
        return click.Option([*names, self.key], multiple=self.many, metavar=metavar, help=self.help)

    def plain(self, value: Any) -> Any:
        """What the command line gives, as YAML would have it."""
        if isinstance(value, tuple):
            return [item for text in value for item in str(text).split(",") if item]
        if value == "none" and self.default is None:
            return None
        return next((choice for choice in _literals(self.annotation) if str(choice) == value), value)


class SettingsCommand(click.Command, Generic[S]):
    """A command that makes `settings` from flags and YAML, and calls `call` with them.

    Args:
        settings: the settings class; its docstring is the help.
        name: of the command.
        call: what the command does.
        positional: the field that is given by position instead of by flag, or fields, in the order of the class; one
            that is a tuple comes last and takes all that are given.
        base: from the given values, values that lie under them (a preset, the settings of a run to resume).
    """

    def __init__(
        self,
        settings: type[S],
        name: str,
        call: Callable[[S], None],
        positional: str | Sequence[str] = (),
        base: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        # A paragraph that must keep its lines starts with \b; examples are such paragraphs.
        text = inspect.cleandoc(settings.__doc__ or "").replace("Examples:\n", "\b\nExamples:\n")
        super().__init__(name, callback=self._run, help=text)
        self.settings, self.call, self.base = settings, call, base
        self.positional = (positional,) if isinstance(positional, str) else tuple(positional)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """A context with a parameter for every setting that there is by now."""
        self.params = []
        for flag in flatten(self.settings):
            if flag.dotted in self.positional:
                self.params.append(click.Argument([flag.key], nargs=-1 if flag.many else 1, required=False))
            else:
                self.params.append(flag.option())
        self.params.append(
            click.Option(
                ["--config", "config_file"], metavar="FILE", help="YAML file with any of these keys; flags win."
            )
        )
        return super().make_context(*args, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block of options per group of settings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                group = parameter.opts[0].lstrip("-").rpartition(".")[0]
                groups.setdefault(f"Options: {group}" if group else "Options", []).append(record)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=40)

    def _run(self, config_file: str | None, **given: Any) -> None:
        settings = self.settings
        flags: dict[str, Any] = {}
        for flag in flatten(settings):
            if given[flag.key] not in (None, ()):
                _put(flags, flag.dotted, flag.plain(given[flag.key]))
        from_file = {} if config_file is None else read_yaml(Path(config_file))
        under = {} if self.base is None else self.base({**from_file, **flags})
        with_file = overlay(settings, under, from_file)
        # The file is checked on its own first, so that a mistake in it is reported with its name.
        if config_file is not None:
            validate(settings, with_file, config_file, partial=True)
        self.call(validate(settings, overlay(settings, with_file, flags), f"repulse {self.name}"))


def flatten(settings: type[Settings], prefix: str = "") -> Iterator[Flag]:
    """Every setting of a class as a flag: of groups, and of all kinds of a choice too."""
    for name, field in settings.model_fields.items():
        choices, group = choices_of(field), group_of(field)
        if choices is not None:
            yield from _of_choice(f"{prefix}{name}", field, choices)
        elif group is not None:
            yield from flatten(group, f"{prefix}{name}.")
        else:
            default, names = field.get_default(call_default_factory=True), names_of(field)
            listed = "" if names is None else f" Known: {', '.join(sorted(names.known()))}."
            said = (field.description or "") + listed + _default_text(default)
            yield Flag(prefix + name, field.annotation, said, default, names=names)


def _of_choice(prefix: str, field: FieldInfo, choices: Choices[Any]) -> Iterator[Flag]:
    said = f"{field.description} One of {', '.join(sorted(choices))}. [{field.default.name}]"
    yield Flag(f"{prefix}.name", str, said, field.default, is_choice=True)
    owners: dict[str, list[str]] = {}
    for name in sorted(choices):
        for key in choices[name].model_fields:
            owners.setdefault(key, []).append(name)
    for key, names in owners.items():
        of_kinds = {name: choices[name].model_fields[key] for name in names}
        first = next(iter(of_kinds.values()))
        alike = all(other.annotation == first.annotation for other in of_kinds.values())
        by_default: dict[str, list[str]] = {}
        for name, other in of_kinds.items():
            by_default.setdefault(_default_text(other.default).strip(" []") or "none", []).append(name)
        if len(by_default) > 1:
            listed = [f"{value}: {', '.join(of)}" for value, of in by_default.items()]
            values = f" [{'; '.join(listed)}]"
        else:
            whose = "" if len(names) == len(choices) else f" For {', '.join(names)}."
            values = whose + _default_text(first.default)
        yield Flag(f"{prefix}.{key}", first.annotation if alike else str, f"{first.description}{values}", first.default)


def _default_text(default: Any) -> str:
    if default is PydanticUndefined:
        return " [required]"
    if isinstance(default, tuple):
        default = ",".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in default)
    if default is None or default == "":
        return ""
    return f" [{default:.6g}]" if isinstance(default, float) else f" [{default}]"


def _metavar(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return "|".join(_metavar(part) for part in typing.get_args(annotation) if part is not types.NoneType)
    if typing.get_origin(annotation) is tuple:
        return f"{_metavar(typing.get_args(annotation)[0])},..."
    if typing.get_origin(annotation) is typing.Annotated:
        return _metavar(typing.get_args(annotation)[0])
    return {int: "INT", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _literals(annotation: Any) -> Iterator[Any]:
    """The values of a Literal, or of one in a union: pydantic does not read a 3 in '3' there."""
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            yield from _literals(part)


def _put(nested: dict[str, Any], dotted: str, value: Any) -> None:
    *heads, last = dotted.split(".")
    for head in heads:
        nested = nested.setdefault(head, {})
    nested[last] = value
