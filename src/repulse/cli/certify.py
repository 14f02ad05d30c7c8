"""`repulse certify`: prove within which radius answers cannot change."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field

from repulse.certification.settings import CertificationSettings
from repulse.cli.measure import MeasuringCommand, measured_command, of_foreign, of_run
from repulse.cli.options import SettingsCommand


class CertifyCommand(MeasuringCommand, CertificationSettings):
    """Prove for each test image within which radius the answer of a model cannot change, and count what is proved.

    Networks whose layers have known Lipschitz constants prove it in L2, L-inf-distance networks in L-inf; any other
    model can be smoothed. A run is smoothed by --method smoothing only, a model from outside also by auto, if it was
    not built to prove anything. With --attack the proofs themselves are attacked: if one is broken, the exit code is 2.

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
        RepulseError: if attacks broke a certificate.
    """
    from repulse.certifying import certify_foreign, certify_run
    from repulse.common.progress import progress_bar
    from repulse.report import certificate_markdown
    from repulse.runs import is_first_process

    command = measured_command(settings, "certify")
    chosen = CertificationSettings(**{name: getattr(settings, name) for name in CertificationSettings.model_fields})
    with progress_bar(settings.progress == "rich" and is_first_process()) as progress:
        if settings.run is not None:
            certification, place = certify_run(
                settings.run, chosen, **of_run(settings), command=command, progress=progress
            )
        else:
            certification, place = certify_foreign(
                of_foreign(settings), chosen, output=settings.output, command=command, progress=progress
            )
    if is_first_process():
        click.echo(f"{certificate_markdown(certification.record)}\n\nrecord: {place}")
    certification.record.check_sound()


command = SettingsCommand(CertifyCommand, "certify", certify_command, positional="run")
