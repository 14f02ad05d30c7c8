"""The figures of the small folder in the docs are those that were measured."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_record():
    found = importlib.util.spec_from_file_location("small_folder", ROOT / "benchmarks" / "small.py")
    small = importlib.util.module_from_spec(found)
    found.loader.exec_module(small)
    content = json.loads((ROOT / "results" / "benchmarks" / "small.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "own-images.md").read_text(encoding="utf-8")
    assert page.split(small.BEGIN)[1].split(small.END)[0].strip() == small.table(content)
    assert [row["preset"] for row in content["results"]] == ["repulse", "softmax", "small"]
