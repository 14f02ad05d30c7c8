"""In tests, shapes and types of the rooms that pyproject.toml names are checked at every call, at a fair price."""

import dataclasses
import functools
import inspect
from typing import get_args

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def _names_arrays(annotation):
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(_names_arrays(part) for part in get_args(annotation))


def _checked(function, typechecker):
    try:
        annotations = inspect.get_annotations(function, eval_str=True)
    except NameError:
        # It names what is known to type checkers only, or made further down.
        return _jaxtyped(function, typechecker=typechecker)
    if not annotations:
        return function
    if inspect.isgeneratorfunction(function):
        return _jaxtyped(function, typechecker=typechecker)
    function.__annotations__ = annotations
    checked = typechecker(function)
    if not any(map(_names_arrays, annotations.values())):
        return checked

    @functools.wraps(function)
    def within(*arguments, **keywords):
        with _jaxtyped("context"):
            return checked(*arguments, **keywords)

    return within


def jaxtyped(*, typechecker):
    """As `jaxtyping.jaxtyped`, which checks arguments twice and binds them for its messages: those say less here."""

    def decorate(thing):
        if inspect.isfunction(thing):
            return _checked(thing, typechecker)
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = _checked(thing.__init__, typechecker)
            return thing
        return _jaxtyped(thing, typechecker=typechecker)

    return decorate


# The import hook of `--jaxtyping-packages` decorates with what stands here.
jaxtyping.jaxtyped = jaxtyped
