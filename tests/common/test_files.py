"""Files that are whole, and the same bytes for the same content."""

import pytest
import torch

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors, writing


def test_equal_tensors_and_metadata_give_equal_bytes(tmp_path):
    tensors = {"b": torch.rand(3, 2), "a": torch.arange(5), "c": torch.tensor(1, dtype=torch.bfloat16)}
    metadata = {name: name * 2 for name in ("seed", "method", "format", "é", '"quoted"', "steps", "metric")}
    files = []
    for index in range(6):
        path = tmp_path / f"{index}.safetensors"
        # In whatever order they are given.
        some = metadata if index % 2 else dict(reversed(metadata.items()))
        save_tensors(path, tensors, some)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
    found, about = load_tensors(path)
    assert about == metadata
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
    save_tensors(path, tensors)
    assert load_tensors(path)[1] == {}


@pytest.mark.parametrize(
    "line",
    ["train --output file/run", "reproduce fashion --output file/runs --methods softmax --seeds 0"],
)
def test_a_place_that_cannot_be_written_is_one_line(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way of a folder")
    assert main(line.split()) == 2
    said = [each for each in capsys.readouterr().err.splitlines() if not each.startswith("repulse: note: ")]
    assert len(said) == 1
    assert said[0].startswith("repulse: error: cannot write file/run")


def test_only_what_the_file_system_refuses_becomes_a_line():
    with pytest.raises(RepulseError, match=r"^cannot write here: No space left on device$"), writing("here"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ValueError, match="other"), writing("here"):
        raise ValueError("other")
