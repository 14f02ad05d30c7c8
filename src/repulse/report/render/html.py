"""The page as HTML that needs nothing else: no network, and no script but its own, which it can do without."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from repulse.report.blocks import Page, Series


def page_as_html(page: Page) -> str:
    """The whole page. Everything that comes from records, names and files is escaped."""
    environment = Environment(
        loader=PackageLoader("repulse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "series": _series}
    script = environment.get_template("page.js").render()
    # The browser runs this very script and no other, wherever it might come from.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("page.html").render(page=page, script=script, digest=f"sha256-{digest}")
    return text.lstrip() + "\n"


def _prose(text: str) -> Markup:
    """Text from outside, escaped; what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _series(series: Sequence[Series]) -> str:
    return json.dumps([[each.name, each.points] for each in series], ensure_ascii=False, separators=(",", ":"))
