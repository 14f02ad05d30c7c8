"""The commands of docs/own-images.md, run as they are written."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repulse.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "own-images.md"
COMMANDS = re.findall(r"^repulse (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)

NET = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, 3))
"""


@pytest.mark.slow
def test_the_commands_run_as_written(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("Test", 2)):
        for shade, name in enumerate(("cat", "dog", "emu")):
            folder = tmp_path / "my-images" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                noise = random.integers(0, 40, (20 + k, 24, 3)) + 100 * shade
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        assert main(shlex.split(command)) == 0, capsys.readouterr().err
    assert (tmp_path / "mine.html").is_file()
