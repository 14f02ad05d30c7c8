"""`repulse certify`: prove within which radius answers cannot change."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from repulse.certification.certify import certify_subject
from repulse.certification.settings import CertificationSettings
from repulse.cli.measure import MeasuringCommand, open_subject, shown_progress
from repulse.cli.options import SettingsCommand
from repulse.common.environment import is_first_process
from repulse.report.printing import print_certificate


class CertifyCommand(MeasuringCommand, CertificationSettings):
    """Prove for each test image within which radius the answer of a model cannot change, and count what is proved.

    Networks whose layers have known Lipschitz constants prove it in L2, L-inf-distance networks in L-inf; any other
    model can be smoothed. A run is smoothed by --method smoothing only, a model from outside also by auto, if it was
    not built to prove anything. With --attack the proofs themselves are attacked: if one is broken, the exit code is 4.

    Examples:
      repulse certify runs/lipschitz --attack
      repulse certify runs/smoothed --method smoothing --images 500 --n 10000
      repulse certify runs/lipschitz --radii 0,36/255,72/255,108/255 --images 1000
      repulse certify --model package.module:factory --weights net.safetensors --data FOLDER --images 100
    """

    output: Path | None = Field(None, description="Folder for the record; none: in the run, or certificates/NAME.")


def certify_command(settings: CertifyCommand) -> None:
    """Certify a run or a model from outside, print the table, and say where the record is.

    Raises:
        BrokenCertificateError: if attacks broke a certificate.
    """
    chosen = CertificationSettings(**{name: getattr(settings, name) for name in CertificationSettings.model_fields})
    with shown_progress(settings, "certifying") as progress:
        certification = certify_subject(
            open_subject(settings, "certify", progress), chosen, settings.output, stop_if_misused=not settings.anyway
        )
    if is_first_process():
        print_certificate(certification.record, certification.folder, settings.format)
    certification.record.check_sound()


command = SettingsCommand(CertifyCommand, "certify", certify_command, positional="run")
