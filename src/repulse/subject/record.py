"""The parts of a record that evaluations and certifications share: which model, and which images."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from repulse.common.errors import RepulseError

P = TypeVar("P", bound="RecordPart")


class RecordPart(BaseModel):
    """A part of a record: unknown keys are errors, and nothing changes after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecord(RecordPart):
    """Which model was measured."""

    name: str = Field(description="What a table calls it, for instance 'paper' or 'softmax'.")
    description: str = Field("", description="One line: backbone, prototypes, readout, loss.")
    parameters: int = Field(description="Number of trainable parameters.")
    weights_sha256: str = Field(description="Digest of all parameters and buffers.")


class DataRecord(RecordPart):
    """Which images it was measured on."""

    name: str
    split: str
    count: int = Field(description="N, the number of images attacked.")
    image_shape: tuple[int, ...] = Field(description="(C, H, W).")
    class_names: tuple[str, ...]
    sha256: str = Field(description="Digest of images and labels.")


def read_record(kind: type[P], path: Path, what: str, command: str) -> P:
    """A record of some kind from its JSON file; `what` and `command` are for error messages.

    Raises:
        RepulseError: if there is no such file, or this version cannot read it.
    """
    if not path.is_file():
        raise RepulseError(f"{path.parent} holds no {path.name}: make one with `{command}`")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RepulseError(f"{path} is not a {what} that this version reads: {where}: {first['msg']}") from error
