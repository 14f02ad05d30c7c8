"""Robust accuracy as the ball grows."""

from __future__ import annotations

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.common.units import in_255ths
from repulse.evaluation.bench import Bench
from repulse.evaluation.plan import LOGIT_OBJECTIVES, TRAINING_LOSS, training_objective
from repulse.evaluation.record import CurvePoint
from repulse.evaluation.settings import EvaluationSettings


def curve_attack(settings: EvaluationSettings) -> str:
    """How the points of the curve are attacked, in words; empty if there is no curve."""
    if not settings.radii:
        return ""
    return (
        f"PGD-{settings.curve_steps}, steps of a quarter of eps: on the training loss from the clean image, on "
        "cross-entropy and on the margin from a random point; worst case: nothing as near was found at all"
    )


def robustness_curve(bench: Bench, settings: EvaluationSettings) -> tuple[CurvePoint, ...]:
    """Robust accuracy at each eps of the settings: by objective, each attacked on its own, and in the worst case."""
    attacks = {TRAINING_LOSS: PGD(training_objective(bench.subject.training_loss), steps=settings.curve_steps)}
    for name in LOGIT_OBJECTIVES:
        attacks[name] = PGD(OBJECTIVES[name], steps=settings.curve_steps, random_start=True)
    shares: dict[float, dict[str, float]] = {}
    for eps in settings.radii:
        shares[eps] = {}
        for name, attack in attacks.items():
            # A ball of radius zero holds the clean image only.
            robust = bench.right
            if eps > 0:
                robust = bench.attack(attack, Threat(settings.norm, eps), f"curve, eps {in_255ths(eps)}, {name}").robust
            shares[eps][name] = robust.double().mean().item()
    # Last, since what is found in one ball may lie in a smaller one as well.
    return tuple(
        CurvePoint(eps=eps, robust_accuracy={**found, "worst case": robust_beyond(bench, Threat(settings.norm, eps))})
        for eps, found in shares.items()
    )


def robust_beyond(bench: Bench, threat: Threat) -> float:
    """The share of images for which nothing that fools was found inside the ball, by any attack so far."""
    return (bench.smallest > threat.eps + threat.tolerance).double().mean().item()
