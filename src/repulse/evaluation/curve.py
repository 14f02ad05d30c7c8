"""Robust accuracy as the ball grows."""

from __future__ import annotations

from repulse.attacks import OBJECTIVES, PGD, EmbeddingLoss, Threat
from repulse.evaluation.bench import Bench
from repulse.evaluation.plan import LOGIT_OBJECTIVES, TRAINING_LOSS, training_objective
from repulse.evaluation.record import CurvePoint
from repulse.settings import EvaluationSettings


def curve_attack(settings: EvaluationSettings) -> str:
    """How the points of the curve are attacked, in words; empty if there is no curve."""
    if not settings.curve:
        return ""
    return (
        f"PGD-{settings.curve_steps}, steps of a quarter of eps: on the training loss from the clean image, on "
        "cross-entropy and on the margin from a random point; worst case: over these, and over all smaller eps"
    )


def robustness_curve(bench: Bench, settings: EvaluationSettings, loss: EmbeddingLoss | None) -> tuple[CurvePoint, ...]:
    """Robust accuracy at each eps of the settings: by objective, each attacked on its own, and in the worst case."""
    attacks = {TRAINING_LOSS: PGD(training_objective(loss), steps=settings.curve_steps)}
    for name in LOGIT_OBJECTIVES:
        attacks[name] = PGD(OBJECTIVES[name], steps=settings.curve_steps, random_start=True)
    survivors = bench.right.clone()
    points = []
    for eps in sorted(set(settings.curve)):
        shares = {}
        for name, attack in attacks.items():
            # A ball of radius nought holds the clean image only.
            robust = bench.right
            if eps > 0:
                robust = bench.attack(attack, Threat(settings.norm, eps), f"curve, eps {eps:.4f}, {name}").robust
            shares[name] = robust.double().mean().item()
            # A smaller ball lies inside a larger one: what was fooled there is fooled here.
            survivors &= robust
        points.append(CurvePoint(eps=eps, robust_accuracy={**shares, "worst case": survivors.double().mean().item()}))
    return tuple(points)
