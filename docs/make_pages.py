"""Pages that are made when the documentation is built: commands, presets, examples, the tutorial with its output."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MADE = DOCS / "made"


def main() -> None:
    """Write all of them to docs/made/."""
    MADE.mkdir(exist_ok=True)
    for name, page in {"cli": cli, "presets": presets, "examples": examples, "tutorial": tutorial}.items():
        file, text = MADE / f"{name}.md", page()
        # Pages that stay the same are not built again.
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def cli() -> str:
    """Every command with its options, as `--help` says them."""
    from repulse.cli.group import COMMANDS

    parts = [
        "# The command line",
        "Made from the commands themselves. `repulse COMMAND --help` says the same in a terminal. Every option is also "
        "a key of a YAML file for `--config`. Numbers may be fractions, lists are separated by commas.",
        "Exit codes: 0 done; 2 a mistake that you can mend; 3 a bar of `--fail-under` or `--fail-on` was missed; 4 an "
        "attack broke a certificate; 130 interrupted.",
    ]
    for name, short in COMMANDS.items():
        command: click.Command = importlib.import_module(f"repulse.cli.{name}").command
        with command.make_context(name, [], resilient_parsing=True) as context:
            usage = " ".join(["repulse", name, *command.collect_usage_pieces(context)])
            parts += [f"## repulse {name}", short, f"```text\n{usage}\n```", *_help(command.help or "")]
            groups: dict[str, list[str]] = {}
            for parameter in command.get_params(context):
                record = parameter.get_help_record(context)
                if record is not None and isinstance(parameter, click.Option):
                    group = parameter.opts[0].lstrip("-").rpartition(".")[0]
                    groups.setdefault(group, []).append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
        for group, rows in groups.items():
            parts += [f"**Options: {group}**" if group else "**Options**"]
            parts += ["\n".join(["| option | what it does |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a help text; examples keep their lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if "Examples:" in paragraph:
            lines = paragraph.replace("\b", "").strip().splitlines()[1:]
            yield "```sh\n" + "\n".join(line.strip() for line in lines) + "\n```"
        else:
            yield " ".join(paragraph.split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def presets() -> str:
    """Every preset with what it says of itself, and what it changes."""
    from repulse.config.presets import PRESETS, preset
    from repulse.config.run import RunConfig

    doc = inspect.cleandoc(preset.__doc__ or "").split("\n\nRaises:")[0].split("\n", 1)[1].strip()
    rows = ["| preset | what it changes |", "|---|---|"]
    plain = RunConfig().model_dump(mode="json")
    for name in PRESETS:
        changed = dict(_changes(plain, preset(name).model_dump(mode="json")))
        changed.pop("name", None)
        said = ", ".join(f"`{_cell(f'{key}: {value}')}`" for key, value in changed.items())
        rows.append(f"| `{name}` | {said or 'nothing'} |")
    return (
        "\n\n".join(
            [
                "# Presets",
                "Made from the presets themselves. `repulse train --preset NAME` takes one; flags and a file change it "
                "further. What is in use is in the run's `config.yaml`.",
                doc,
                "## What each changes",
                "Of the settings that `repulse train --help` lists, those that differ from their defaults.",
                "\n".join(rows),
            ]
        )
        + "\n"
    )


def _changes(old: object, new: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and new values of what differs."""
    if isinstance(new, dict) and isinstance(old, dict):
        # Another loss or recipe has settings of its own: they are said, too.
        for key, value in new.items():
            yield from _changes(old.get(key), value, f"{name}.{key}" if name else key)
    elif new != old:
        yield name, f"{new:.4g}" if isinstance(new, float) else new


def examples() -> str:
    """Every file of examples/, with what it says of itself."""
    parts = [
        "# Examples",
        "Each is one file of `examples/`, short enough to copy from, and run by a test.",
    ]
    for file in sorted((ROOT / "examples").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        title = file.stem.replace("_", " ")
        about = ast.get_docstring(ast.parse(text)) or ""
        parts += [f"## {title[0].upper()}{title[1:]}", about, f"```python\n# examples/{file.name}\n{text.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def cells(text: str) -> Iterator[tuple[str, str]]:
    """The cells of a script in jupytext's percent format: `("markdown" or "code", text)`."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield "markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
        else:
            yield "code", body.strip()


def tutorial() -> str:
    """The tutorial, run from its beginning to its end, with what each cell printed."""
    parts: list[str] = []
    names: dict[str, object] = {"__name__": "tutorial"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for kind, text in cells((DOCS / "tutorial.py").read_text(encoding="utf-8")):
                if kind == "markdown":
                    parts.append(text)
                    continue
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(text, "docs/tutorial.py", "exec"), names)
                parts.append(f"```python\n{text}\n```")
                if said := printed.getvalue().rstrip():
                    parts.append(f"```text\n{said}\n```")
        finally:
            os.chdir(before)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
