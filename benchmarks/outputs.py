"""What the commands of the README print, as they print it: kept in `results/readme.json`.

    python benchmarks/outputs.py

Runs each in a folder of its own, in a terminal of 80 columns: the demo; the README's lines for somebody's own model, a
small network on handwritten digits; and its commands for somebody's own images, the same digits as PNG files, one
folder per class. `python benchmarks/readme.py` then copies them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from repulse import load_data
from repulse.common.files import write_atomically

ROOT = Path(__file__).parent.parent

DEMO = ("repulse demo",)

OWN_MODEL = """from repulse import evaluate

evaluation = evaluate(model, images, labels, eps=8 / 255)
print(evaluation.record.verdict.summary)
evaluation.save("runs/model")  # then: repulse report runs/model
"""

OWN_IMAGES = (
    "repulse train --data.source my-images --output runs/mine",
    "repulse evaluate runs/mine --eps 8/255 --images 100",
    "repulse report runs/mine",
)

# Of a command, the lines that a reader needs: of training the last epoch, of an evaluation the answers.
FIRST_OF_CARD = "╭"


def run(command: str, folder: Path) -> str:
    """What one command prints in a terminal of 80 columns."""
    words = command.split()
    if words[1] in ("demo", "evaluate"):
        words += ["--format", "table", "--progress", "quiet"]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    # Of training a log is all there is to see, and that goes to standard error.
    return (done.stdout or done.stderr).replace("\N{NO-BREAK SPACE}", " ").rstrip()


def own_images() -> str:
    """Train, evaluate and report on PNG files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        splits = load_data("digits", seed=0)
        for split, part in (("train", splits.train), ("test", splits.test)):
            pixels = part.fetch(torch.arange(len(part)))
            for number, (image, label) in enumerate(zip(pixels, part.labels.tolist(), strict=True)):
                file = folder / "my-images" / split / str(label) / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[0].numpy()).save(file)
        trained, evaluated, reported = (run(command, folder) for command in OWN_IMAGES)
    card = evaluated[evaluated.index(FIRST_OF_CARD) :]
    return "\n".join([trained.splitlines()[-1], card, reported.splitlines()[-1]])


def own_model() -> str:
    """The README's lines, on a small network that somebody trained."""
    images, labels, model = _somebodys()
    printed = io.StringIO()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(printed):
        os.chdir(place)
        try:
            exec(OWN_MODEL, {"model": model, "images": images, "labels": labels})
        finally:
            os.chdir(before)
    return printed.getvalue().replace("\N{NO-BREAK SPACE}", " ").rstrip()


def _somebodys() -> tuple[Tensor, Tensor, nn.Module]:
    """100 test images, their labels, and an ordinary network."""
    splits = load_data("digits", seed=0)
    x, y = splits.train.fetch(torch.arange(len(splits.train))).float() / 255, splits.train.labels
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return splits.test.fetch(torch.arange(100)).float() / 255, splits.test.labels[:100], model


def demo() -> str:
    """What the demo prints last."""
    with tempfile.TemporaryDirectory() as place:
        return run(DEMO[0], Path(place))


def main() -> None:
    """Run what was asked for, and keep it beside what was kept before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"own model": (OWN_MODEL, own_model), "own images": ("\n".join(OWN_IMAGES), own_images)}
    parts["demo"] = ("\n".join(DEMO), demo)
    parser.add_argument("--only", choices=sorted(parts), help="leave the others as they are kept")
    options = parser.parse_args()
    place = ROOT / "results" / "readme.json"
    kept = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    kept["command"] = "python benchmarks/outputs.py"
    for name, (code, make) in parts.items():
        if options.only in (None, name):
            kept[name] = {"code": code.strip(), "printed": make()}
            print(f"{name}:\n{kept[name]['printed']}", flush=True)
    write_atomically(place, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
