"""Sphinx configuration."""

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import make_pages

from repulse.common.settings import Settings
from repulse.version import __version__

project = "repulse"
author = "The repulse developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "repulse"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
# Shapes such as Float[Tensor, "N d"] are clearer as they are written than as what they are made of.
autodoc_preserve_defaults = True


def without_pydantic(app: Any, what: str, name: str, obj: Any, options: Any, sig: Any, back: Any) -> Any:  # noqa: ARG001
    """What pydantic makes of a constructor says less than the list of settings below it."""
    return ("(**settings)", None) if what == "class" and isinstance(obj, type) and issubclass(obj, BaseModel) else None


def with_settings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Settings with their defaults, as `--help` says them."""
    if what == "class" and isinstance(obj, type) and issubclass(obj, Settings):
        lines += ["", ":Settings:", ""]
        for field, info in obj.model_fields.items():
            default = info.get_default(call_default_factory=True)
            shown = f" ``[{default!r}]``" if isinstance(default, str | int | float | bool | tuple) else ""
            lines.append(f"    - ``{field}``: {info.description or ''}{shown}")
        lines.append("")


def setup(app: Sphinx) -> None:
    """Make the pages that are made, and show settings as settings."""
    app.connect("builder-inited", lambda _: make_pages.main())
    app.connect("autodoc-process-signature", without_pydantic)
    app.connect("autodoc-process-docstring", with_settings)
