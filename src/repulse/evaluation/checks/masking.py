"""Is gradient masking at work? The checks that give away attacks which fail for reasons other than robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from repulse.attacks import Threat
from repulse.evaluation.attack_runner import AttackRunner, Outcome
from repulse.evaluation.checks.check import Finding, checks_on
from repulse.evaluation.checks.evidence import Evidence
from repulse.evaluation.record import AttackRecord, CheckRecord

_NOTHING_RIGHT = Finding(None, "The model classifies no image right.")


def examine(
    runner: AttackRunner,
    threat: Threat,
    found: Mapping[str, Outcome],
    attacks: Sequence[AttackRecord],
    *,
    images: int = 128,
) -> tuple[CheckRecord, ...]:
    """Ask every check that looks at `Evidence` about a model and what attacks found.

    The checks run cheap attacks of their own on some of the images that the model classifies right. Shares are shares
    of those images, or, where outcomes of the evaluation are compared, of all that are classified right.

    Args:
        runner: the model and its images.
        threat: the ball of the evaluation.
        found: outcomes on all images of the runner by attack, in the order in which they ran; an outcome may hold
            the successes of earlier attacks too.
        attacks: what each of these attacks is.
        images: how many images the checks look at, at most.

    Returns:
        One record for each check; where it cannot be asked, `passed` is None and the sentence says why.
    """
    evidence = Evidence.gather(runner, threat, found, attacks, images if threat.eps > 0 else 0)
    checks, records = checks_on(Evidence), []
    # A stochastic model draws the same numbers at every run, and those of the caller are left alone.
    with torch.random.fork_rng([runner.device] if runner.device.type == "cuda" else []):
        torch.manual_seed(evidence.seed)
        for done, (name, check) in enumerate(checks.items()):
            runner.progress("checks", done, len(checks))
            records.append(check.answer(name, evidence) if len(evidence) else check.record(name, _NOTHING_RIGHT))
    runner.progress("checks", len(checks), len(checks))
    return tuple(records)
