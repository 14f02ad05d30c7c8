"""Commands from settings: every field of a settings class is a flag, a YAML key and a check, defined once.

A command's settings are made in layers, each over the one before: the class's defaults, a preset where the command has
presets, the YAML file named by `--config`, the flags.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from repulse.config.run import overlay, read_yaml, validate
from repulse.config.settings import Settings

S = TypeVar("S", bound=Settings)


class SettingsCommand(click.Command):
    """A command whose options are grouped in the help as they are in the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block of options per group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                dotted = parameter.opts[0].lstrip("-")
                group = dotted.rpartition(".")[0]
                groups.setdefault(f"Options: {group}" if group else "Options", []).append(record)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=40)


def settings_command(
    settings: type[S],
    name: str,
    call: Callable[[S], None],
    *,
    positional: str | None = None,
    base: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> click.Command:
    """A click command that makes `settings` from flags and YAML, and calls `call` with them.

    Args:
        settings: the settings class; its docstring is the help.
        name: of the command.
        call: what the command does.
        positional: a field that is given by position instead of by flag; a tuple takes all that are given.
        base: from the given values, values that lie under them (a preset, the settings of a run to resume).
    """
    fields = dict(flatten(settings))
    parameters: list[click.Parameter] = []
    for dotted, field in fields.items():
        if dotted == positional:
            many = _is_tuple(field)
            parameters.append(click.Argument([_key(dotted)], nargs=-1 if many else 1, required=False))
        else:
            parameters.append(_option(dotted, field))
    parameters.append(
        click.Option(["--config", "config_file"], metavar="FILE", help="YAML file with any of these keys; flags win.")
    )

    def run(config_file: str | None, **given: Any) -> None:
        flags: dict[str, Any] = {}
        for dotted, field in fields.items():
            value = given[_key(dotted)]
            if value is None or value == ():
                continue
            _put(flags, dotted, _plain(value, field))
        from_file = {} if config_file is None else read_yaml(Path(config_file))
        changes = overlay(from_file, flags)
        # The file is checked on its own first, so that a mistake in it is reported with its name.
        under = {} if base is None else base(changes)
        if config_file is not None:
            validate(settings, overlay(under, from_file), config_file, partial=True)
        call(validate(settings, overlay(under, changes), f"repulse {name}"))

    # A paragraph that must keep its lines starts with \b; examples are such paragraphs.
    text = inspect.cleandoc(settings.__doc__ or "").replace("Examples:\n", "\b\nExamples:\n")
    return SettingsCommand(name, callback=run, params=parameters, help=text, no_args_is_help=False)


def flatten(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a settings class, inner classes included, by its dotted name."""
    for name, field in settings.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from flatten(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _option(dotted: str, field: FieldInfo) -> click.Option:
    flag = dotted.replace("_", "-")
    help_text = (field.description or "") + _default_text(field)
    if field.annotation is bool:
        head, _, last = flag.rpartition(".")
        off = f"{head}.no-{last}" if head else f"no-{last}"
        return click.Option([f"--{flag}/--{off}", _key(dotted)], default=None, help=help_text)
    return click.Option(
        [f"--{flag}", _key(dotted)],
        multiple=_is_tuple(field),
        metavar=_metavar(field.annotation),
        help=help_text,
    )


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
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


def _is_tuple(field: FieldInfo) -> bool:
    parts = (field.annotation, *typing.get_args(field.annotation))
    return any(typing.get_origin(part) is tuple for part in parts)


def _plain(value: Any, field: FieldInfo) -> Any:
    if isinstance(value, tuple):
        return [item for text in value for item in str(text).split(",") if item]
    return None if value == "none" and field.default is None else value


def _key(dotted: str) -> str:
    return dotted.replace(".", "__")


def _put(nested: dict[str, Any], dotted: str, value: Any) -> None:
    *heads, last = dotted.split(".")
    for head in heads:
        nested = nested.setdefault(head, {})
    nested[last] = value
