"""What the documentation shows works: its Python runs, and its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from repulse.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and page.name not in ("README.md", "extend.md")],
    ids=lambda p: p.name,
)
def test_the_python_of_a_page_runs(page):
    from repulse.attacks import OBJECTIVES
    from repulse.models import BACKBONES, READOUTS
    from repulse.prototypes import METHODS
    from repulse.training import LOSSES, RECIPES

    registries = (OBJECTIVES, BACKBONES, METHODS, LOSSES, READOUTS, RECIPES)
    before = [set(registry) for registry in registries]
    names = {"__name__": "docs"}
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), names)
    finally:
        # What a page registers must not be seen by other tests.
        for registry, known in zip(registries, before, strict=True):
            for name in set(registry) - known:
                del registry._entries[name]


def commands():
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                found = re.search(r"(?:^|-m )repulse (.*)", line)
                # Commands with a plugin take what it registers: test_extend.py runs them.
                if found and "--plugin" not in line:
                    yield pytest.param(found[1], id=f"{page.name}: {found[1][:50]}")
        # In the text, too; one that only names a command, or its help, has nothing to be wrong.
        for inline in re.findall(r"`repulse (\w+ [^`\n]+)`", page.read_text(encoding="utf-8")):
            if "--help" not in inline:
                yield pytest.param(inline, id=f"{page.name}, text: {inline[:50]}")


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_shown_is_a_command(line):
    name, *arguments = shlex.split(line, comments=True)
    command = cli.get_command(None, name)
    with command.make_context(name, arguments) as context:
        assert context.params


def test_the_readme_uses_the_public_interface():
    import repulse

    text = "".join(blocks(ROOT / "README.md", "python"))
    names = [name for names in re.findall(r"from repulse import (.*)", text) for name in names.split(", ")]
    names += re.findall(r"\brepulse\.(\w+)", text)
    assert len(names) >= 4
    for name in names:
        assert name in repulse.__all__
