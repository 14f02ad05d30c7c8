"""A data source of somebody else's: one file, one line of registration, its settings in YAML, flags and help."""

import pytest

from repulse.cli import main
from repulse.common import plugins
from repulse.data import load_data
from repulse.data.sources import SOURCES

SHAPES = '''
import torch
from pydantic import Field
from repulse.data.sources import SOURCES, Source, Split

@SOURCES.register("stripes")
class Stripes(Source):
    """Vertical and horizontal stripes."""

    side: int = Field(8, ge=4, description="Pixels of a side.")

    def read(self, place, name, columns):
        vertical = (torch.arange(self.side) % 2 * 255).to(torch.uint8).expand(self.side, self.side)
        images = torch.stack((vertical, vertical.T)).unsqueeze(1).repeat(20, 1, 1, 1)
        return {split: Split(images, [0, 1] * 20, f"{name} {split}", ("up", "flat")) for split in ("train", "test")}
'''


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    file = tmp_path / "stripes.py"
    file.write_text(SHAPES, encoding="utf-8")
    monkeypatch.setenv(plugins.VARIABLE, str(file))
    yield
    SOURCES._entries.pop("stripes", None)
    plugins._loaded.discard(str(file))


def test_it_is_a_flag_a_yaml_key_and_in_the_help(stripes, tmp_path, capsys):
    shape = ["--fit.epochs", "1", "--model.width", "0.25", "--progress", "quiet"]
    assert main(["train", "--help"]) == 0
    assert "--data.reader.side INT" in capsys.readouterr().out
    flags = ["--data.source", "stripes", "--data.reader", "stripes", "--data.reader.side", "12"]
    assert main(["train", "--output", str(tmp_path / "a"), *flags, *shape]) == 0
    (tmp_path / "c.yaml").write_text("data: {source: stripes, reader: {name: stripes, side: 12}}\n", encoding="utf-8")
    assert main(["train", "--output", str(tmp_path / "b"), "--config", str(tmp_path / "c.yaml"), *shape]) == 0
    for name in ("a", "b"):
        assert '"image_shape": [\n  1,\n  12,\n  12\n ]' in (tmp_path / name / "classes.json").read_text(
            encoding="utf-8"
        )


def test_by_its_name_alone_it_has_its_defaults(stripes):
    plugins.load_plugins()
    splits = load_data("stripes")
    assert splits.train.image_shape == (1, 8, 8)
    assert splits.test.class_names == ("up", "flat")


def test_an_impossible_setting_is_one_line(stripes, tmp_path, capsys):
    flags = ["--data.reader", "stripes", "--data.reader.side", "2"]
    assert main(["train", "--output", str(tmp_path / "a"), *flags]) == 2
    said = "data reader 'stripes': side: input should be greater than or equal to 4, got '2'"
    assert capsys.readouterr().err == f"repulse: error: repulse train: {said}\n"
