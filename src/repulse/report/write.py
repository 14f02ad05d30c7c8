"""Write a report: a page, and the same figures as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repulse.common.files import write_atomically
from repulse.report.certified import collect_certificates
from repulse.report.collect import collect
from repulse.report.group import grouped
from repulse.report.render.markdown import to_markdown
from repulse.report.words import plain


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies."""

    html: Path
    markdown: Path
    json: Path


def write_report(paths: Sequence[str | Path], output: str | Path, title: str | None = None) -> ReportFiles:
    """Write one self-contained HTML page, and beside it the same figures as Markdown and JSON.

    The same records give the same bytes: nothing depends on the time or the place of writing.

    Args:
        paths: run folders, folders of evaluations or certificates, or folders that hold some, at any depth. Of several,
            those that hold none are passed over.
        output: the page; the other files take its name, with `.md` and `.json`.
        title: of the page; None: made from the names of models and data.

    Raises:
        RepulseError: if no path holds an evaluation or a certificate, a file is damaged, or the report cannot be
            written.
    """
    # Drawing takes matplotlib, which a caller that wants a table only should not wait for.
    from repulse.report.certificates import labels
    from repulse.report.page import make_page
    from repulse.report.render.html import page_as_html
    from repulse.report.render.json import page_as_json
    from repulse.report.render.markdown import page_as_markdown

    places, output = [Path(path) for path in paths], Path(output)
    groups, certificates = grouped(collect(places)), collect_certificates(places)
    named = [entry.label for group in groups for entry in group.entries]
    page = make_page(groups, plain(title) if title else _title(named or labels(certificates)), certificates)
    file = output if output.suffix in (".html", ".htm") else output.with_name(output.name + ".html")
    files = ReportFiles(file, file.with_suffix(".md"), file.with_suffix(".json"))
    # All three are made before the first is written: a record that cannot be shown leaves no half of a report.
    made = page_as_html(page), page_as_markdown(page), page_as_json(page)
    for path, text in zip((files.html, files.markdown, files.json), made, strict=True):
        write_atomically(path, text)
    return files


def markdown_table(paths: Sequence[str | Path]) -> str:
    """A Markdown table of evaluations, as `repulse evaluate` prints it into a file and a README shows it.

    One evaluation: a row for each attack. Several: a row for each model, a table for each data set, norm and eps.

    Args:
        paths: as for `write_report`.

    Raises:
        RepulseError: if no path holds an evaluation, or a file is damaged.
    """
    from repulse.report.printing import evaluation_blocks

    return "\n\n".join(to_markdown(block) for block in evaluation_blocks([Path(path) for path in paths], brief=False))


def _title(labels: Sequence[str]) -> str:
    names = list(dict.fromkeys(labels))
    shown = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
    return f"Robustness of {shown}"
