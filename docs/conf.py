"""Sphinx configuration."""

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
