"""Typed settings: one definition serves the flags, the YAML files, the checks and the saved record of a run.

A setting may be a *choice*: one of several kinds of a thing, such as a loss. Then each kind is a class of settings of
its own, registered under a name, and the field says where the kinds are registered:

    LOSSES: Choices[Loss] = Choices("loss", Loss)

    @LOSSES.register("l1")
    class L1(Loss):
        weight: float = Field(1.0, gt=0, description="Factor on the distance.")

    class RunConfig(Settings):
        loss: Annotated[Loss, OneOf(LOSSES)] = CrossEntropy()

In YAML the choice is `loss: {name: l1, weight: 2}` or `loss: l1`; on the command line `--loss.name l1 --loss.weight 2`
or `--loss l1`. Names are looked up when values are checked, so whatever has been registered by then counts.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from repulse.common.errors import RepulseError, first_line
from repulse.common.registry import Registry, unknown_name


class Settings(BaseModel):
    """A group of settings: unknown keys are errors, numbers are finite, and nothing changes after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Choice(Settings):
    """One of several kinds of a thing, with the settings of its own. Every setting has a default.

    Raises:
        RepulseError: on making one, if a setting is unknown or has an impossible value.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _impossible(type(self), error.errors()[0]) from None

    @model_serializer(mode="wrap")
    def _with_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, **handler(self)}


S = TypeVar("S", bound=Settings)
C = TypeVar("C", bound=Choice)


class Choices(Registry[type[C]]):
    """The kinds of a thing, by their names.

    Args:
        kind: what the thing is called in messages: 'loss'.
    """

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Decorate a class to enter it under `name`. Another name, with other defaults, is a subclass.

        Raises:
            ValueError: if the name is taken, the class has a name already, or a setting has no default.
        """

        def enter(entry: type[C]) -> type[C]:
            if "name" in vars(entry):
                raise ValueError(f"{entry.__name__} is {self.kind} {entry.name!r} already; register a subclass")
            open_ = [key for key, field in entry.model_fields.items() if field.is_required()]
            if open_:
                raise ValueError(f"{self.kind} {name!r} needs a default for {', '.join(open_)}")
            super(Choices, self).register(name)(entry)
            entry.name, entry.kind = name, self.kind
            return entry

        return enter

    def make(self, value: Any) -> C:
        """The thing that a name, a mapping with a `name`, or the thing itself stands for; null is a setting's default.

        Raises:
            RepulseError: if the name is unknown (the nearest is suggested), or a setting is unknown or impossible.
        """
        if isinstance(value, Choice):
            return typing.cast(C, value)
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping) or "name" not in value:
            raise RepulseError(
                f"a {self.kind} is given by its name, or by keys of which one is its name, got {value!r}"
            )
        entry = self[str(value["name"])]
        # Files from before kinds had settings of their own say null for the settings of all others.
        known = {key for other in self.values() for key in other.model_fields}
        given = {str(key): own for key, own in value.items() if own is not None or key not in known}
        del given["name"]
        return entry(**given)


class OneOf(Generic[C]):
    """Marks a field as a choice: `Annotated[Loss, OneOf(LOSSES)]`.

    Args:
        choices: where the kinds are registered.
        otherwise: which kind keys without a name are settings of; "": a name is needed.
    """

    def __init__(self, choices: Choices[C], otherwise: str = "") -> None:
        self.choices, self.otherwise = choices, otherwise

    def _make(self, value: Any) -> C:
        if self.otherwise and isinstance(value, Mapping) and "name" not in value:
            value = {"name": self.otherwise, **value}
        return self.choices.make(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """How pydantic checks and writes it."""
        return core_schema.no_info_plain_validator_function(
            self._make,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults),
                info_arg=True,
            ),
        )


class Names:
    """Marks a field as the name of a registered thing: `Annotated[str, Names("attack", known_attacks)]`.

    Args:
        kind: what the thing is called in messages.
        known: the names that there are; asked whenever a value is checked, or help is printed.
        many: whether several may be given, separated by commas or as a list; the value is then one text with commas.
    """

    def __init__(self, kind: str, known: Callable[[], Iterable[str]], *, many: bool = False) -> None:
        self.kind, self.known, self.many = kind, known, many

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """How pydantic checks and writes it."""
        return core_schema.no_info_plain_validator_function(
            self.checked, serialization=core_schema.to_string_ser_schema()
        )

    def checked(self, value: Any) -> str:
        """The name or names, each once.

        Raises:
            RepulseError: if one is unknown (the nearest is suggested), or none is given.
        """
        parts = value.split(",") if isinstance(value, str) and self.many else [value]
        parts = list(value) if self.many and isinstance(value, list | tuple) else parts
        names = list(dict.fromkeys(str(part).strip() for part in parts))
        known = set(self.known())
        for name in names:
            if name not in known:
                raise unknown_name(self.kind, name, known)
        if not names:
            raise RepulseError(f"name at least one {self.kind} of {', '.join(sorted(known))}")
        return ",".join(names)


def names_of(field: FieldInfo) -> Names | None:
    """What a field may name; None if it names nothing that is registered."""
    inside = [mark for part in typing.get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    return next((mark for mark in (*field.metadata, *inside) if isinstance(mark, Names)), None)


def choices_of(field: FieldInfo | None) -> Choices[Any] | None:
    """Where the kinds of a field are registered; None if it is no choice."""
    marks = [] if field is None else [mark for mark in field.metadata if isinstance(mark, OneOf)]
    return marks[0].choices if marks else None


def group_of(field: FieldInfo | None) -> type[Settings] | None:
    """The class of a field that is a group of settings; None if it is none, or a choice."""
    inner = None if field is None or choices_of(field) else field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Settings) else None


def overlay(settings: type[Settings], base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `changes` over a nested `base`, both for a settings class; neither is changed.

    A choice of another name starts from that kind's defaults: settings of the kind below do not reach it.
    """
    result = dict(base)
    for key, value in changes.items():
        field, old = settings.model_fields.get(key), result.get(key)
        group = group_of(field)
        if choices_of(field) is not None and field is not None:
            result[key] = _overlay_choice(field.default if old is None else old, value)
        elif group is not None and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = overlay(group, old, value)
        else:
            result[key] = value
    return result


def _overlay_choice(old: Any, value: Any) -> Any:
    value = {"name": value} if isinstance(value, str) else value
    old = old.model_dump() if isinstance(old, Choice) else {"name": old} if isinstance(old, str) else old
    if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
        return value
    return {**old, **value} if value.get("name", old.get("name")) == old.get("name") else dict(value)


def merge(base: S, changes: Mapping[str, Any], origin: str) -> S:
    """The settings `base` with nested `changes` over them.

    Args:
        base: the settings to start from.
        changes: a nested mapping, as from YAML.
        origin: where the changes come from, for error messages.

    Raises:
        RepulseError: on an unknown key (the nearest known one is suggested) or a value that does not fit.
    """
    return validate(type(base), overlay(type(base), base.model_dump(), changes), origin)


def validate(settings: type[S], values: Mapping[str, Any], origin: str, *, partial: bool = False) -> S:
    """Settings from nested values.

    Args:
        settings: the settings class.
        values: a nested mapping.
        origin: where the values come from, for error messages.
        partial: let required values be missing; what is returned then must not be used.

    Raises:
        RepulseError: on an unknown key (the nearest known one is suggested), a missing one, or a wrong value.
    """
    try:
        return settings.model_validate(values)
    except RepulseError as error:
        raise RepulseError(f"{origin}: {error}") from error
    except ValidationError as error:
        problems = [item for item in error.errors() if not (partial and item["type"] == "missing")]
        if not problems:
            return typing.cast(S, settings.model_construct())
        raise _explained(problems[0], settings, origin) from error


def chosen(kind: type[S], settings: S | None, keywords: Mapping[str, Any], origin: str) -> S:
    """Settings that a function was given as an object, or by their names, or not at all.

    Args:
        kind: the settings class.
        settings: the object; None: none was given.
        keywords: values by names; empty: none were given.
        origin: the function, for error messages.

    Raises:
        RepulseError: if both were given, or a value does not fit.
    """
    if settings is None:
        return validate(kind, keywords, origin)
    if keywords:
        raise RepulseError("give settings as an object or by their names, not both")
    return settings


def to_yaml(settings: Settings) -> str:
    """The settings as YAML, every key written out."""
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        RepulseError: if the file is absent, is not YAML, or holds something else than a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RepulseError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RepulseError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', None) or first_line(error)}"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RepulseError(f"{path} must hold keys and values, got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _explained(problem: ErrorDetails, settings: type[Settings], origin: str) -> RepulseError:
    """A problem that validation found as one line, with the nearest name for an unknown key."""
    location = [str(part) for part in problem["loc"]]
    path = ".".join(location)
    if problem["type"] == "extra_forbidden":
        for part in location[:-1]:
            settings = group_of(settings.model_fields.get(part)) or settings
        known = [".".join([*location[:-1], name]) for name in settings.model_fields]
        return unknown_name(f"key in {origin}:", path, known)
    if problem["type"] == "missing":
        return RepulseError(f"{origin}: {path} is required; give it as --{path.replace('_', '-')} or in the YAML file")
    return RepulseError(f"{origin}: {_wrong(problem)}")


def _impossible(choice: type[Choice], problem: ErrorDetails) -> RepulseError:
    """What is wrong with the settings of one kind, in one line that names it."""
    who = f"{choice.kind or 'setting of'} {choice.name or choice.__name__!r}"
    if problem["type"] != "extra_forbidden":
        return RepulseError(f"{who}: {_wrong(problem)}")
    key, known = str(problem["loc"][0]), list(choice.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"leave out {choice.kind}.{key}"
    return RepulseError(f"{who} has no setting {key!r}; {hint} (it has: {', '.join(known) or 'none'})")


def _wrong(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    path = ".".join(str(part) for part in problem["loc"])
    # A check of several settings together says itself what it was given.
    return f"{path}: {message}, got {problem['input']!r}" if path else message
