"""The README says what the results say."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name, folder="benchmarks"):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/tables.md", "docs/quick-start.md"])
def test_the_figures_of_a_page_are_those_of_the_committed_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert script("readme").filled(text) == text


def test_the_readme_shows_each_number_to_quote_and_no_recompressed_images():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("**number to quote**") >= 2
    assert "JPEG" not in text


def test_the_readmes_picture_says_what_its_table_says():
    readme = script("readme")
    assert (ROOT / "docs" / "images" / "curves.svg").read_text(encoding="utf-8") == readme.picture()


def test_the_benchmarks_table_is_that_of_the_committed_records():
    table = ROOT / "results" / "benchmarks" / "table.md"
    assert table.read_text(encoding="utf-8") == script("readme").benchmark_tables()


def test_everything_public_can_be_fetched_from_the_package():
    import repulse

    for name in repulse.__all__:
        assert getattr(repulse, name) is not None
    assert {"ATTACKS", "RunConfig", "ensemble", "evaluate", "load_foreign", "__version__"} <= set(dir(repulse))


def test_importing_the_package_does_not_import_torch():
    code = "import sys, repulse; repulse.RepulseError, repulse.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_readme_types_is_what_its_output_was_printed_by():
    kept, outputs = json.loads((ROOT / "results" / "readme.json").read_text(encoding="utf-8")), script("outputs")
    typed = {"own model": outputs.OWN_MODEL, "own images": "\n".join(outputs.OWN_IMAGES), "demo": outputs.DEMO[0]}
    assert {name: kept[name]["code"] for name in typed} == {name: code.strip() for name, code in typed.items()}
    assert all(len(line) <= 80 for name in ("own images", "demo") for line in kept[name]["printed"].splitlines())


def test_the_screenshot_of_a_report_is_small():
    assert 20_000 < (ROOT / "docs" / "images" / "report.png").stat().st_size < 200_000


def test_the_demo_tells_its_story_for_every_seed_that_was_tried():
    from repulse.cli.demo import EPS, SEEDS

    kept = json.loads((ROOT / "results" / "benchmarks" / "demo.json").read_text(encoding="utf-8"))
    rows = kept["models"]
    assert kept["eps"] == EPS
    assert all(len(each) == SEEDS >= 5 for each in rows.values())
    assert {row["how sure"] for row in rows["paper"]} == {"overstated"}
    assert "overstated" not in {row["how sure"] for row in rows["adversarial"]}
    assert rows["adversarial"][0]["how sure"] == "measured"
    for paper, adversarial in zip(rows["paper"], rows["adversarial"], strict=True):
        assert adversarial["worst case"] > paper["worst case"]


def test_on_a_package_index_every_link_of_the_readme_leads_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = script("absolute_links", ".ci")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        assert (ROOT / target).is_file(), target
    made = links.absolute(text, "https://example.org/repulse/", "v1.0")
    assert re.findall(r"\]\((?!https?:)", made) == []
    assert "](https://example.org/repulse/raw/v1.0/docs/images/curves.svg)" in made
    assert "](https://example.org/repulse/blob/v1.0/docs/tables.md)" in made


def test_the_pages_that_are_made_name_every_command_option_and_preset():
    from repulse.cli.group import COMMANDS
    from repulse.config.presets import PRESETS

    pages = script("make_pages", "docs")
    commands, presets = pages.cli(), pages.presets()
    assert all(f"## repulse {name}\n" in commands for name in COMMANDS)
    assert all(f"`--{flag}" in commands for flag in ("fail-under", "recipe.eps", "attacks", "slurm.workers", "top-k"))
    assert all(f"| `{name}` |" in presets for name in PRESETS)
    assert "examples/plain_pytorch.py" in pages.examples()


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_tutorial_runs_and_says_that_training_helped():
    text = script("make_pages", "docs").tutorial()
    before, after = (float(share) for share in re.search(r"before: ([\d.]+)%, after: ([\d.]+)%", text).groups())
    assert after > before + 20
    assert text.count("```text") == 5
