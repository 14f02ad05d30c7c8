"""What was proved: a certification on disk, before it is a table or a picture.

A certification is a folder with two files. `certificate.json` is a `CertificateRecord`: method, constants, figures,
provenance. `certified.safetensors` holds what was proved of each image, so that any figure can be counted again:

| tensor | shape | meaning |
|---|---|---|
| `label` | (N,) int32 | true class |
| `prediction` | (N,) int32 | predicted class of the clean image; -1: smoothing abstained |
| `radius` | (N,) float64 | radius within which the right answer is proved, in the norm; 0: nothing proved |
| `count` | (N,) int64 | smoothing only: how many of the n draws gave the predicted class |
| `broken` | (N,) uint8 | with an attack: 1 where an image inside the certified radius fooled the model |
| `broken/distance` | (N,) float64 | with an attack: its distance; inf where none was found |
| `robust` | (N, R) uint8 | with an attack: 1 where nothing within the r-th radius fooled the model |
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor

from repulse.common.errors import BrokenCertificateError
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.subject.record import DataRecord, ModelRecord, RecordPart, read_record

CERTIFICATE_FILE = "certificate.json"
CERTIFIED_FILE = "certified.safetensors"

MethodName = Literal["lipschitz", "linf-distance", "smoothing"]


class LayerRecord(RecordPart):
    """The Lipschitz constant of one layer, verified apart from how the layer was made."""

    name: str
    kind: str = Field(description="Class of the layer.")
    lower: float = Field(description="Stretch of a vector that was found: the constant is at least this.")
    upper: float = Field(description="Proved: the constant is at most this. The certificate uses it.")


class LipschitzRecord(RecordPart):
    """The Lipschitz constant from image to embedding, in the norm of the certificate."""

    constant: float = Field(description="Proved upper bound of the whole model, normalisation of pixels included.")
    layers: tuple[LayerRecord, ...] = ()


class SmoothingRecord(RecordPart):
    """How the classifier was smoothed; see `repulse.certification.smoothing.Smoothing`."""

    sigma: float
    n0: int
    n: int
    alpha: float
    abstained: float = Field(description="Share of images on which nothing was said, in [0, 1].")


class CertifiedPoint(RecordPart):
    """Accuracies at one radius, shares of all images in [0, 1]."""

    radius: float
    certified: float = Field(description="Proved right for every image within the radius: a lower bound.")
    attacked: float | None = Field(None, description="Right under every attack at the radius: an upper bound.")


class SoundnessRecord(RecordPart):
    """The attack on every image at its own certified radius; it must find nothing."""

    attack: str = Field(description="Name of the ensemble.")
    members: tuple[str, ...] = Field(description="Labels of the attacks, in the order in which they ran.")
    images: int = Field(description="Images with a certificate, all of which were attacked.")
    broken: tuple[int, ...] = Field((), description="Positions of images whose certificate was broken.")
    spacing: float = Field(description="Attacks of one radius run at least at 1 / (1 + this) of each certified radius.")
    forward_passes: int
    backward_passes: int
    seconds: float


class CertificateRecord(RecordPart):
    """Everything one certification proved."""

    schema_version: Literal[1] = 1
    created: str = Field(description="UTC, ISO 8601.")
    model: ModelRecord
    data: DataRecord
    norm: Literal["linf", "l2"]
    method: MethodName
    slack: float = Field(description="Taken off every radius for rounding, in the norm; see docs/certificates.md.")
    lipschitz: LipschitzRecord | None = None
    smoothing: SmoothingRecord | None = None
    natural_accuracy: float = Field(description="Share of clean images that the certified classifier gets right.")
    points: tuple[CertifiedPoint, ...] = Field(description="Accuracy by radius, ascending.")
    soundness: SoundnessRecord | None = None
    seed: int
    seconds: float
    environment: dict[str, str] = Field(description="Versions, device, threads, command.")

    @property
    def sound(self) -> bool | None:
        """Whether the attacks left every certificate whole; None if none was made."""
        return None if self.soundness is None else not self.soundness.broken

    def check_sound(self) -> None:
        """Refuse a record whose certificates were broken.

        Raises:
            BrokenCertificateError: if an attack broke one; the first images are named.
        """
        if self.soundness is None or not self.soundness.broken:
            return
        broken, images = self.soundness.broken, self.soundness.images
        named = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        chance = ""
        if self.smoothing is not None:
            chance = f"; by chance alone {self.smoothing.alpha * images:.2g} are expected at most"
        raise BrokenCertificateError(
            f"unsound: attacks broke {len(broken)} of {images} certificates (image{'s' * (len(broken) > 1)} {named})"
            f"{chance}; trust none of them, and look for the layer or the radius that is wrong"
        )


def certified_accuracy(radius: Tensor, at: float) -> float:
    """The share of images whose proved radius is larger than `at`: a ball of that size, its edge included, is safe."""
    return (radius > at).double().mean().item()


def save_certificate(folder: Path, record: CertificateRecord, outcomes: dict[str, Tensor]) -> None:
    """Write the two files of a certification; the record last, so that a record on disk is always complete."""
    save_tensors(folder / CERTIFIED_FILE, outcomes)
    write_atomically(folder / CERTIFICATE_FILE, record.model_dump_json(indent=1) + "\n")


def load_certificate(folder: str | Path) -> tuple[CertificateRecord, dict[str, Tensor]]:
    """Read a certification's record and its outcomes.

    Raises:
        RepulseError: if the folder holds none, or one that this version cannot read.
    """
    folder = Path(folder)
    record = read_record(CertificateRecord, folder / CERTIFICATE_FILE, "certificate", "repulse certify")
    return record, load_tensors(folder / CERTIFIED_FILE)[0]
