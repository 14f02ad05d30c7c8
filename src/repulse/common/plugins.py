"""Losses, recipes, backbones and the like from outside: Python files and installed packages that register them.

What is loaded, in this order: entry points of the group `repulse.plugins` (a package's
`[project.entry-points."repulse.plugins"]`), the files in `REPULSE_PLUGINS` (separated as in `PATH`), and those of
`--plugin FILE`, which are entered there so that processes started by this one load them too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from repulse.common.errors import RepulseError

VARIABLE = "REPULSE_PLUGINS"

_loaded: set[str] = set()


def add_plugins(files: Sequence[str]) -> None:
    """Enter files in `REPULSE_PLUGINS`, for this process and those that it starts."""
    if files:
        kept = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
        os.environ[VARIABLE] = os.pathsep.join([*kept, *(str(Path(file).absolute()) for file in files)])


def load_plugins() -> None:
    """Run every plugin once in this process.

    Raises:
        RepulseError: if one cannot be read, or raises an error.
    """
    for point in importlib.metadata.entry_points(group="repulse.plugins"):
        _once(point.value, point.load)
    for file in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _once(file, partial(_run, Path(file)))


def _once(name: str, load: Callable[[], object]) -> None:
    if name in _loaded:
        return
    try:
        load()
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RepulseError(f"cannot load the plugin {name}: {said}") from error
    _loaded.add(name)


def _run(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError("no such file")
    name = f"repulse_plugin_{file.stem}_{abs(hash(file)):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("it must be a Python file, NAME.py")
    module = importlib.util.module_from_spec(spec)
    # Classes look up their annotations in their module, so it must be known while it runs.
    sys.modules[name] = module
    spec.loader.exec_module(module)
