"""The object: checks, and the way to disk and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors
from repulse.prototypes import Prototypes, make_prototypes


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    made = make_prototypes("repulsive-sphere", 9, 4, seed=7, steps=20)
    made.save(tmp_path / "prototypes.safetensors")
    again = Prototypes.load(tmp_path / "prototypes.safetensors")
    assert torch.equal(again.points, made.points)
    assert (again.n, again.d) == (9, 4)
    assert (again.metric, again.method, again.seed, again.steps) == ("cosine", "repulsive-sphere", 7, 20)
    assert again.provenance == made.provenance


@pytest.mark.parametrize(
    "damage", [{"provenance": "{"}, {"provenance": "[1]"}, {"seed": "x"}, {"steps": None}, {"method": None}]
)
def test_a_file_whose_metadata_is_damaged(damage: dict[str, str | None], tmp_path: Path) -> None:
    made = make_prototypes("simplex", 3, 4)
    made.save(tmp_path / "p.safetensors")
    tensors, about = load_tensors(tmp_path / "p.safetensors")
    kept = {name: value for name, value in {**about, **damage}.items() if value is not None}
    save_tensors(tmp_path / "p.safetensors", tensors, kept)
    with pytest.raises(RepulseError, match=r"p\.safetensors is damaged: how its prototypes were made cannot be read$"):
        Prototypes.load(tmp_path / "p.safetensors")


def test_files_that_hold_no_prototypes(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(RepulseError) as error:
        Prototypes.load(path)
    assert str(error.value) == f"no such file: {path}"
    save_tensors(path, {"points": torch.eye(2)})
    with pytest.raises(RepulseError) as error:
        Prototypes.load(path)
    assert str(error.value) == f"{path} holds no prototypes; make some with `repulse prototypes --output {path}`"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(1, 3), "prototypes must have shape (n, d) with n >= 2 and d >= 1, got (1, 3)"),
        (torch.ones(3, 0), "prototypes must have shape (n, d) with n >= 2 and d >= 1, got (3, 0)"),
        (torch.tensor([[0.0], [torch.nan]]), "prototype 1 has a coordinate that is not a finite number"),
        (
            torch.tensor([[0.0, 1.0], [2.0, 1.0], [-0.0, 1.0]]),
            "prototypes 0 and 2 are the same point: their classes could not be told apart",
        ),
    ],
)
def test_points_that_cannot_be_prototypes(points: torch.Tensor, message: str) -> None:
    with pytest.raises(RepulseError) as error:
        Prototypes(points, "cosine", "mine")
    assert str(error.value) == message
