"""Robust accuracy as the ball grows."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.findings import Findings
from repulse.evaluation.forecast import curve_stage
from repulse.evaluation.plan import LOGIT_OBJECTIVES, TRAINING_LOSS, training_objective
from repulse.evaluation.record import CurvePoint
from repulse.evaluation.settings import EvaluationSettings

# By how much, as a share, the nearest image found must lie beyond a radius for the radius to be settled.
SETTLED = 0.2


def curve_attack(settings: EvaluationSettings) -> str:
    """How the points of the curve are attacked, in words; empty if there is no curve."""
    if not settings.radii:
        return ""
    how = (
        f"PGD-{settings.curve_steps}, steps of a quarter of eps: on the training loss from the clean image, on "
        "cross-entropy and on the margin from a random point"
    )
    if settings.chosen:
        how += (
            "; an image is attacked from the smallest radius at which anything fooled it until it falls, and on the "
            "margin at the radius just below, where that is near"
        )
    return f"{how}; worst case: nothing as near was found at all"


def robustness_curve(runner: AttackRunner, settings: EvaluationSettings, findings: Findings) -> tuple[CurvePoint, ...]:
    """Robust accuracy at each radius of the settings: by objective, each attacked on its own, and in the worst case.

    Where the attacks of the evaluation left smallest perturbations, most of the curve follows from them: an image is
    robust below the smallest, and what fools it in one ball lies in every larger one.
    """
    attacks = {TRAINING_LOSS: PGD(training_objective(runner.subject.training_loss), steps=settings.curve_steps)}
    for name in LOGIT_OBJECTIVES:
        attacks[name] = PGD(OBJECTIVES[name], steps=settings.curve_steps, random_start=True)
    balls = [Threat(settings.norm, eps) for eps in settings.radii]
    known = bool(settings.chosen)
    if known and not runner.has_gradients:
        return tuple(
            CurvePoint(eps=ball.eps, robust_accuracy={"worst case": robust_beyond(runner, ball)}) for ball in balls
        )
    if known:
        _settle(runner, attacks["margin"], balls, settings.eps, findings.worst.robust)
    shares: list[dict[str, float]] = [{} for _ in balls]
    for name, attack in attacks.items():
        fallen = torch.zeros_like(runner.right)
        for ball, share in zip(balls, shares, strict=True):
            todo = runner.right & ~fallen & _inside(runner, ball) if known else runner.right
            robust = runner.right & ~fallen if known else runner.right
            # A ball of radius zero holds the clean image only.
            if ball.eps > 0 and todo.any():
                robust = robust & runner.attack(attack, ball, curve_stage(ball, name), among=todo).robust
            fallen = runner.right & ~robust
            share[name] = robust.double().mean().item()
    # Last, since what is found in one ball may lie in a smaller one as well.
    return tuple(
        CurvePoint(eps=ball.eps, robust_accuracy={**share, "worst case": robust_beyond(runner, ball)})
        for ball, share in zip(balls, shares, strict=True)
    )


def robust_beyond(runner: AttackRunner, threat: Threat) -> float:
    """The share of images for which nothing that fools was found inside the ball, by any attack so far."""
    return (~_inside(runner, threat)).double().mean().item()


def _settle(runner: AttackRunner, attack: PGD, balls: list[Threat], eps: float, survived: Bool[Tensor, "N"]) -> None:
    """Attack each image in the largest ball in which nothing fooled it yet, where it is near to falling there.

    Images that no walk found anything for are attacked in the largest ball of all, then in each smaller one until they
    stand. What survived every attack at eps is settled there and below.
    """
    lost = runner.right & runner.smallest.isinf()
    fell = lost.clone()
    for ball in reversed(balls):
        near = runner.smallest <= ball.eps * (1 + SETTLED)
        todo = runner.right & ~_inside(runner, ball) & (near | (lost & fell)) & ~(survived & (ball.eps <= eps))
        if ball.eps > 0 and todo.any():
            robust = runner.attack(attack, ball, curve_stage(ball, "settled"), among=todo).robust
            fell = fell & ~(todo & robust)


def _inside(runner: AttackRunner, ball: Threat) -> Bool[Tensor, "N"]:
    """Images that something inside a ball fooled, or that are wrong when clean."""
    return runner.smallest <= ball.eps + ball.tolerance
