"""A model from code: a factory, or a module that stands ready, in a package or a file."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from repulse.common.errors import RepulseError, one_line, with_article


def from_factory(spec: str, module: str, attribute: str) -> nn.Module:
    """The module that `module:attribute` is or returns, where `module` is a name or the path of a .py file.

    Raises:
        RepulseError: if it is not there, fails, needs arguments, or is something else.
    """
    is_file = module.endswith(".py")
    with _importable(Path(module).resolve().parent if is_file else None):
        found: Any = _import_file(Path(module)) if is_file else _import(module)
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise RepulseError(_missing(module, found, part))
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise RepulseError(
                f"{spec} is {with_article(found)}, neither a torch.nn.Module nor a function that returns one"
            )
        needed = _needed_arguments(found)
        if needed:
            raise RepulseError(
                f"{spec} needs arguments ({', '.join(needed)}); give a function without any that returns the model"
            )
        try:
            model = found()
        except (Exception, SystemExit) as error:
            raise RepulseError(f"{spec} raised {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise RepulseError(f"{spec} must return a torch.nn.Module, got {with_article(model)}")
    return model


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Within this context the current folder, and that of a file, can be imported from, as with `python FILE`."""
    before = list(sys.path)
    sys.path[:0] = [str(place) for place in (folder, Path.cwd()) if place is not None and str(place) not in before]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if name == absent or name.startswith(f"{absent}."):
            raise RepulseError(
                f"no module named {absent!r}, neither in the current folder nor among the installed packages"
            ) from error
        raise RepulseError(f"importing {name} raised {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise RepulseError(f"importing {name} raised {one_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    # A name of its own: a file called `test.py` or `model.py` must not stand in for a module of that name.
    name = f"repulse_foreign_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None, "a path that ends in .py has a loader"
    assert found.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RepulseError(f"importing {path} raised {one_line(error)}") from error
    return module


def _missing(module: str, found: Any, name: str) -> str:
    known = [key for key, value in vars(found).items() if not key.startswith("_") and _is_model_like(value, found)]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(repr(each) for each in near)}?" if near else _listed(known)
    return f"{module} has no {name!r}; {hint}"


def _is_model_like(value: object, module: object) -> bool:
    """Whether a value may be the model or make it: what a module only imports from elsewhere is not."""
    own = str(getattr(module, "__name__", "")).split(".")[0]
    home = str(getattr(value, "__module__", "")).split(".")[0]
    return isinstance(value, nn.Module) or (callable(value) and home == own)


def _listed(known: Sequence[str]) -> str:
    return f"it has {', '.join(sorted(known)[:10])}" if known else "it defines no function and no model"


def _needed_arguments(factory: Any) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in optional]
