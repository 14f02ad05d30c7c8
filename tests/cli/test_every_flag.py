"""Every flag of every command is given once, with a legal value made from the settings themselves."""

import types
import typing
from pathlib import Path
from typing import Literal

import pytest
from pydantic_core import PydanticUndefined

from repulse.cli import cli
from repulse.cli.group import COMMANDS
from repulse.cli.options import SettingsCommand, flatten
from repulse.common.settings import choices_of, group_of

# What a check beyond the type asks for.
LEGAL = {
    "prototypes.method": ["simplex"],
    "model.backbone": ["fast"],
    "attacks": ["quick", "apgd-ce,square"],
    "ensemble": ["square"],
}


def recorder(command):
    """The same command, which keeps its settings instead of doing anything."""
    kept = []
    return SettingsCommand(command.settings, command.name, kept.append, command.positional), kept


def legal(annotation, default):
    """Texts that may be given for a type; every one of a few words."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return [str(part) for part in parts]
    if origin in (typing.Union, types.UnionType):
        return [text for part in parts if part is not types.NoneType for text in legal(part, default)]
    if origin is tuple:
        return [",".join(legal(parts[0], None))]
    if origin is typing.Annotated:
        return legal(parts[0], default)
    if annotation in (int, float) and isinstance(default, (int, float)):
        return [str(default)]
    return {bool: ["true"], int: ["10"], float: ["0.5"], str: ["x"], Path: ["x"]}[annotation]


def positional(command, flag):
    return flag.dotted in command.positional


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_takes_a_legal_value_of_its_type(name):
    command, kept = recorder(cli.get_command(None, name))
    required = [flag for flag in flatten(command.settings) if flag.default is PydanticUndefined]
    always = [word for flag in required for word in (["x"] if positional(command, flag) else [f"--{flag.dotted}", "x"])]
    for flag in flatten(command.settings):
        if positional(command, flag):
            continue
        words = f"--{flag.dotted.replace('_', '-')}"
        texts = [None] if flag.annotation is bool else LEGAL.get(flag.dotted, legal(flag.annotation, flag.default))
        for text in texts:
            for argv in given(command, flag, words, text):
                with command.make_context(name, [*always, *argv]) as context:
                    command.invoke(context)
                assert kept


def given(command, flag, words, text):
    """The flag with what must stand beside it: a setting of one kind needs the name of that kind."""
    head, _, key = flag.dotted.rpartition(".")
    settings, *inner = [command.settings, *head.split(".")]
    for name in inner[:-1]:
        settings = group_of(settings.model_fields[name])
    choices = choices_of(settings.model_fields.get(inner[-1]))
    value = [words] if text is None else [words, text]
    if choices is None:
        yield value
    elif flag.is_choice:
        yield from ([words, name] for name in choices)
        yield from ([f"--{head}", name] for name in choices)
    else:
        for name in choices:
            field = choices[name].model_fields.get(key)
            if field is not None:
                texts = [] if field.annotation is bool else legal(field.annotation, field.default)[:1]
                yield [f"--{head}.name", name, words, *texts]


def test_a_number_among_legal_values_is_read_as_one():
    command, kept = recorder(cli.get_command(None, "train"))
    with command.make_context("train", ["--output", "x", "--data.channels", "3"]) as context:
        command.invoke(context)
    assert kept[0].data.channels == 3


def test_groups_and_choices_are_told_apart():
    fields = cli.get_command(None, "train").settings.model_fields
    assert group_of(fields["fit"]) is not None
    assert group_of(fields["loss"]) is None
    assert choices_of(fields["loss"]) is not None
    assert choices_of(fields["fit"]) is None
