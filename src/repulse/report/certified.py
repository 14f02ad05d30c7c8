"""Find certificates on disk, and say what they prove of a model that was evaluated too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from repulse.certification.record import (
    CERTIFICATE_FILE,
    CertificateRecord,
    certified_accuracy,
    load_certificate,
)
from repulse.common.errors import RepulseError
from repulse.common.run_files import CERTIFICATES
from repulse.evaluation.record import Record
from repulse.report.words import plain

# A record is counted from its outcomes; anything beyond rounding means that one of the two files was changed.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Certified:
    """One certification.

    Args:
        folder: where it lies.
        record: what was proved.
        outcomes: per image, see `repulse.certification.record`.
    """

    folder: Path
    record: CertificateRecord
    outcomes: dict[str, Tensor] = field(repr=False)

    @property
    def place(self) -> str:
        """Where it lies, without the folders above: 'RUN/certificates/NAME', or the name of the folder."""
        whole = self.folder.resolve()
        if whole.parent.name != CERTIFICATES:
            return whole.name
        return f"{whole.parent.parent.name}/{CERTIFICATES}/{whole.name}"

    @property
    def name(self) -> str:
        """What a table calls it: its run folder, or the model."""
        whole = self.folder.resolve()
        run = whole.parent.parent.name if whole.parent.name == CERTIFICATES else ""
        return plain(run) or plain(self.record.model.name) or "model"

    def accuracy(self, radius: float) -> float:
        """The share of images that is proved right within a radius, in [0, 1]."""
        return certified_accuracy(self.outcomes["radius"], radius)


def certificate_folders(path: Path) -> list[Path]:
    """Folders under a path that hold a whole certificate, by name."""
    files = sorted(path.rglob(CERTIFICATE_FILE))
    return [file.parent for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def collect_certificates(paths: Sequence[Path]) -> list[Certified]:
    """Read all certificates under the paths, each once.

    Args:
        paths: folders, at any depth; for an evaluation's folder, the certificates of its run.

    Raises:
        RepulseError: if a file is damaged, or a record does not agree with its outcomes.
    """
    found: dict[Path, Certified] = {}
    for path in paths:
        for folder in certificate_folders(path):
            whole = folder.resolve()
            if whole not in found:
                record, outcomes = load_certificate(folder)
                _check_agreement(folder, record, outcomes)
                found[whole] = Certified(folder, record, outcomes)
    return list(found.values())


def certificate_for(record: Record, certificates: Sequence[Certified]) -> Certified | None:
    """The certificate of an evaluated model, in the same norm, on the same data set: the one that proves most at eps.

    One on the very images of the evaluation goes before others, one of the model itself before a smoothed one.
    """
    fitting = [
        each
        for each in certificates
        if each.record.model.weights_sha256 == record.model.weights_sha256
        and each.record.norm == record.norm
        and (each.record.data.name, each.record.data.split) == (record.data.name, record.data.split)
    ]

    def rank(each: Certified) -> tuple[bool, bool, float]:
        same = each.record.data.sha256 == record.data.sha256
        return same, each.record.smoothing is None, each.accuracy(record.eps)

    return max(fitting, key=rank, default=None)


def _check_agreement(folder: Path, record: CertificateRecord, outcomes: dict[str, Tensor]) -> None:
    if {"label", "prediction", "radius"} - set(outcomes) or len(outcomes["radius"]) != record.data.count:
        raise RepulseError(f"the outcomes in {folder} are not those of {record.data.count} images: certify again")
    for point in record.points:
        counted = certified_accuracy(outcomes["radius"], point.radius)
        if abs(counted - point.certified) > _ROUNDING:
            raise RepulseError(
                f"{folder} contradicts itself: its record says {point.certified:.4f} are certified at radius "
                f"{point.radius:.4g}, its outcomes {counted:.4f}; certify again"
            )
    broken = tuple(outcomes["broken"].nonzero().flatten().tolist()) if "broken" in outcomes else ()
    if broken != (record.soundness.broken if record.soundness else ()):
        raise RepulseError(
            f"{folder} contradicts itself: its record and its outcomes name other broken certificates; certify again"
        )
