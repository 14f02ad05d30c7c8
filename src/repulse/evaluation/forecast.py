"""What is still to come of an evaluation, and about what it costs: for a progress bar, never for a figure."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.attacks import Attack, Threat
from repulse.attacks.ensemble import Ensemble
from repulse.attacks.near_misses import NearMisses
from repulse.attacks.square import Square
from repulse.attacks.threat import Norm
from repulse.common.units import in_255ths
from repulse.evaluation.plan import LOGIT_OBJECTIVES, TRAINING_LOSS, PlannedAttack
from repulse.evaluation.settings import EvaluationSettings

# Which part of the images are near misses, need Square beyond its canary, or fall late, as it went on ten small models.
_NEAR, _DOUBTED, _LATE = 0.25, 0.1, 0.3

# Passes for each image of the checks, and how many images these look at, at most.
_CHECKS, _CHECKED = 600, 128


def passes(attack: Attack) -> float:
    """About how many passes, forward and backward together, an attack spends on an image that stands to the end."""
    if isinstance(attack, Ensemble):
        return sum(passes(member.attack) for member in attack.members)
    if isinstance(attack, NearMisses):
        return 1 + _NEAR * passes(attack.attack)
    if isinstance(attack, Square) and attack.canary is not None:
        return attack.canary + _DOUBTED * attack.queries
    steps, starts = getattr(attack, "steps", 0), getattr(attack, "restarts", 1) * max(1, getattr(attack, "targets", 1))
    return float(2 * steps * starts + getattr(attack, "queries", 0) + getattr(attack, "tries", 0))


def coming(
    todo: Sequence[PlannedAttack], settings: EvaluationSettings, threat: Threat, right: int, standing: int
) -> dict[str, float]:
    """The stages to come, in their order, with about how many passes each takes over all images.

    Args:
        todo: the attacks that have not run.
        settings: of the evaluation.
        threat: the ball.
        right: how many images are classified right.
        standing: how many of them nothing has fooled yet.
    """
    late = standing + _LATE * (right - standing)
    costs: dict[str, float] = {}
    longest = {each.series: each for each in sorted(todo, key=lambda each: passes(each.attack)) if each.series}
    for each in todo:
        # Of a series the longest runs, at the place of the first.
        runs = longest.pop(each.series, None) if each.series else each
        if runs is not None:
            costs[runs.label] = passes(runs.attack) * (standing if each.survivors else late)
    for stage in curve_stages(settings, threat.norm):
        share = _NEAR if settings.chosen else 1.0
        costs[stage] = 2 * settings.curve_steps * late * share
    costs["checks"] = float(_CHECKS * min(right, _CHECKED))
    return costs


def curve_stages(settings: EvaluationSettings, norm: Norm) -> list[str]:
    """What the attacks of a curve are called, in the order in which they run; some may have nothing to do."""
    balls = [Threat(norm, eps) for eps in settings.radii if eps > 0]
    settled = [curve_stage(ball, "settled") for ball in reversed(balls)] if settings.chosen else []
    return settled + [curve_stage(ball, name) for name in (TRAINING_LOSS, *LOGIT_OBJECTIVES) for ball in balls]


def curve_stage(ball: Threat, name: str) -> str:
    """What an attack of the curve is called."""
    return f"curve, eps {in_255ths(ball.eps)}, {name}"
