"""The table of features: every "yes" of ours names a test that exists, and every extra is one."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in TEXT.split("## What to install")[0].splitlines()
    if line.startswith("| ")
][1:]


@functools.cache
def functions_in(path):
    return {node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(node, "name")}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_yes_names_a_test(row):
    assert len(row) == 9
    _, ours, link, *others = row
    assert all(cell for cell in others)
    assert ours in ("yes", "no")
    if ours == "no":
        assert link == ""
        return
    path, name = re.fullmatch(r"`(tests/\S+\.py)::(test_\w+)`", link).groups()
    assert name in functions_in(path)


def test_every_extra_for_users_is_explained_and_exists():
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )
    explained = set(re.findall(r"^\| `repulse\[(\w+)\]`", TEXT, flags=re.MULTILINE))
    assert explained == extras - {"test", "lint", "docs", "browser"}
