"""The commands of the documentation run as they are written, on tiny stand-ins for what they name."""

import dataclasses
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import repulse.cli.certify
import repulse.cli.evaluate
import repulse.runs
from repulse.certification.certify import certify_subject
from repulse.cli import main
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.evaluation import evaluate, evaluate_subject
from repulse.runs import train_run

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
CLASSES = ("cat", "dog", "emu")

# Beginnings of commands that are not run here, and why; that each is a command is seen by test_snippets.py.
ELSEWHERE = {
    "repulse demo": "two minutes; tests/cli/test_end_to_end.py",
    "repulse reproduce": "minutes to days; tests/reproduce",
    "repulse evaluate --model net.pt2": "export takes long; tests/foreign/test_load_foreign.py",
    "repulse evaluate --model net.onnx": "an extra; tests/foreign/test_onnx_files.py",
    "repulse evaluate --model timm/": "an extra; tests/foreign/test_load_foreign.py",
    "repulse evaluate --model hf:": "an extra; tests/foreign/test_named_models.py",
    "repulse evaluate --model robustbench:": "needs the network; tests/foreign/test_named_models.py",
    "repulse train --preset small --data.source my-images --data.image-size 224": "needs pretrained weights",
    "repulse train --plugin": "tests/docs/test_extend.py",
}

NET = """
from torch import nn

def make():
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 3))

factory = make
"""


def commands(page):
    """Every command of the blocks of a page, without comments."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["repulse"] and not any(line.startswith(head) for head in ELSEWHERE):
                yield words[1:]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder with everything that commands name, made once: images, code, weights, a run."""
    place = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 2)):
        for shade, name in enumerate(CLASSES):
            folder = place / "my-images" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                noise = random.integers(0, 40, (32, 32, 3)) + 100 * shade
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    (place / "net.py").write_text(NET, encoding="utf-8")
    for package, module in (("package", "module"), ("package", "models")):
        (place / package).mkdir(exist_ok=True)
        (place / package / f"{module}.py").write_text(NET, encoding="utf-8")
    config = merge(preset("softmax"), {"fit": {"accelerator": "cpu"}}, "docs")
    train_run(bounded(config), place / "runs" / "demo" / "paper")
    return place


def bounded(config):
    """A training of one epoch of a narrow network; whatever else is asked for stands."""
    few = {"train_images": 100} if config.data.source == "digits" else {}
    small = {"epochs": 1, "least_steps": 0, "accelerator": "cpu", "devices": "1", "batch_size": 20}
    return merge(config, {"fit": small, "data": few, "model": {"width": 0.125}}, "docs")


@pytest.fixture
def tiny(stand_in, tmp_path, monkeypatch):
    """Commands work in the stand-in, train one epoch, attack with two steps and draw twenty times."""
    place = tmp_path / "here"
    shutil.copytree(stand_in, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def shorter(config, *rest, **how):
        return train_run(bounded(config), *rest, **how)

    def weaker(subject, settings, *rest, **how):
        weak = {"attacks": "paper", "steps": (2,), "curve": (settings.eps,), "curve_steps": 2, "gallery": 2}
        return evaluate_subject(first(subject), settings.model_copy(update=weak), *rest, **how)

    def fewer(subject, settings, *rest, **how):
        draws = {"n": 20, "n0": 5} if settings.method == "smoothing" else {}
        return certify_subject(first(subject), settings.model_copy(update=draws), *rest, **how)

    monkeypatch.setattr(repulse.runs, "train_run", shorter)
    monkeypatch.setattr(repulse.cli.evaluate, "evaluate_subject", weaker)
    monkeypatch.setattr(repulse.cli.certify, "certify_subject", fewer)
    yield place
    for name in ("package", "package.module", "package.models"):
        sys.modules.pop(name, None)


def first(subject):
    return dataclasses.replace(subject, images=subject.images[:6], labels=subject.labels[:6])


def provide(words):
    """The file that a command names, for there is one name for several kinds."""
    torch.manual_seed(0)
    names = {}
    exec(NET, names)
    model = names["make"]()
    for file in {word for word in words if word.endswith((".pt", ".safetensors"))}:
        if f"--model {file}" in " ".join(words):
            torch.jit.trace(model, torch.rand(2, 3, 32, 32)).save(file)
        elif file.endswith(".pt"):
            torch.save({"state_dict": model.state_dict()}, file)
        else:
            save_file(model.state_dict(), file)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_written(page, tiny, capsys):
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        (tiny / name).write_text(content, encoding="utf-8")
    for words in commands(page):
        provide(words)
        code = main(words)
        assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
        if "--output" in words:
            assert (tiny / words[words.index("--output") + 1]).exists()


def test_every_exception_is_still_in_the_documentation():
    every = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for head in ELSEWHERE:
        assert head in every, head


def test_yaml_that_is_shown_is_a_file_of_a_command():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            name = re.match(r"# (\S+\.yaml)\n", block)
            assert name is not None, f"{page.name}: a block of YAML starts with the name of its file"
            assert any(name[1] in words for words in commands(page))


def test_the_python_of_the_readme_runs_with_a_model_and_images(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # The other block is a part of examples/plain_pytorch.py, which runs whole.
    block, loop = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert textwrap.indent(loop, "    ") in (ROOT / "examples" / "plain_pytorch.py").read_text(encoding="utf-8")

    def weak(model, images, labels, *, eps):
        return evaluate(model, images, labels, eps=eps, attacks="paper", steps=(2,))

    monkeypatch.setattr("repulse.evaluate", weak)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images = torch.rand(6, 1, 4, 4)
    monkeypatch.chdir(tmp_path)
    names = {"model": model, "images": images, "labels": model(images).argmax(1)}
    exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "runs" / "model" / "record.json").is_file()
