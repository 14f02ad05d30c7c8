"""docs/extend.md as one plugin: what it registers trains, is attacked, and stands in help, YAML, record and report."""

import json
import re
from pathlib import Path

import pytest
import yaml

from repulse.attacks import ATTACKS
from repulse.cli import main
from repulse.data.sources import SOURCES
from repulse.evaluation.checks import CHECKS
from repulse.models import BACKBONES, READOUTS
from repulse.prototypes import METHODS
from repulse.report.section import SECTIONS
from repulse.training import LOSSES, RECIPES, SCHEDULES

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
REGISTRIES = (ATTACKS, SOURCES, CHECKS, BACKBONES, READOUTS, METHODS, SECTIONS, LOSSES, RECIPES, SCHEDULES)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    import repulse.report.page  # noqa: F401 (sections of the house come first)

    monkeypatch.setenv("REPULSE_PLUGINS", "")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    file = tmp_path / "mine.py"
    file.write_text("\n\n".join(blocks))
    before = [set(registry) for registry in REGISTRIES]
    yield file
    # What a page registers must not be seen by other tests.
    for registry, known in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - known:
            del registry._entries[name]


@pytest.mark.slow
def test_one_file_adds_one_of_each(plugin, tmp_path, capsys):
    assert main(["train", "--plugin", str(plugin), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("Factor on the L1 distance. For l1. [1]", "Factor on all pixels. For dimmed. [0.8]"):
        assert words in shown
    assert main(["prototypes", "--classes", "4", "--dimension", "3", "--method", "circle"]) == 0
    settings = tmp_path / "mine.yaml"
    chosen = {
        "data": {"source": "stripes"},
        "prototypes": {"method": "circle"},
        "model": {"backbone": "mlp", "readout": "l1-distance", "temperature": 1.0},
        "loss": {"name": "l1", "weight": 0.5},
        "recipe": "dimmed",
        "fit": {"epochs": 2, "batch_size": 50, "accelerator": "cpu", "schedule": {"name": "halved", "after": 0.3}},
    }
    settings.write_text(yaml.safe_dump(chosen))
    run = tmp_path / "run"
    flags = ["--recipe.dim", "0.9", "--progress", "quiet"]
    assert main(["train", "--config", str(settings), "--preset", "softmax", "--output", str(run), *flags]) == 0
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["loss"] == {"name": "l1", "weight": 0.5}
    assert (kept["recipe"]["name"], kept["recipe"]["dim"]) == ("dimmed", 0.9)
    assert kept["fit"]["schedule"] == {"name": "halved", "after": 0.3}
    place = tmp_path / "evaluation"
    few = [
        "--images",
        "8",
        "--attacks",
        "apgd-ce,brighter",
        "--steps",
        "5",
        "--curve",
        "",
        "--progress",
        "quiet",
        "--anyway",
    ]
    assert main(["evaluate", str(run), "--output", str(place), *few]) == 0
    record = json.loads((place / "record.json").read_text())
    assert "twice-the-same" in {check["name"] for check in record["checks"]}
    ours = [attack for attack in record["attacks"] if attack["group"] == "chosen"]
    assert [(attack["name"], attack["objective"]) for attack in ours] == [
        ("apgd-ce", "cross-entropy"),
        ("brighter", ""),
    ]
    assert ours[1]["forward_passes"] <= 2 * ours[1]["attacked"]
    assert main(["evaluate", "--help"]) == 0
    assert "brighter" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--attacks", "square,brihgter"]) == 2
    assert "unknown attack 'brihgter'; did you mean 'brighter'?" in capsys.readouterr().err
    assert main(["report", str(place), "--output", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "8 images were attacked." in text
    assert "Are the logits the same when asked twice?" in text
    assert "brighter" in text
