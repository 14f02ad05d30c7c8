"""Files that are whole, and the same bytes for the same content."""

import torch

from repulse.common.files import load_tensors, save_tensors


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
