"""Which attacks an evaluation runs: the paper's protocol, and always beside it attacks on the logits."""

from __future__ import annotations

from dataclasses import dataclass

from repulse.attacks import OBJECTIVES, PGD, Attack, EmbeddingLoss, Objective, Threat, fgsm, through_embedding
from repulse.attacks.ensemble import Ensemble, adaptive, ensemble
from repulse.attacks.fmn import FMN
from repulse.attacks.prototype_objectives import has_distances
from repulse.evaluation.bench import Bench
from repulse.evaluation.record import Group
from repulse.evaluation.settings import EvaluationSettings
from repulse.evaluation.surrogate import train_surrogate

# Objectives that look at the logits, and so don't depend on how the model was trained.
LOGIT_OBJECTIVES = ("cross-entropy", "margin")

TRAINING_LOSS = "training loss"

# The model is asked several times for each, which must stay cheap beside the attacks.
SURROGATE_IMAGES = 1000


@dataclass(frozen=True)
class PlannedAttack:
    """One attack of an evaluation, with what a table calls it."""

    name: str
    label: str
    group: Group
    attack: Attack
    series: str | None = None
    """Attacks of one series differ in their steps only: the longest runs once, and tells what the shorter ones find."""
    survivors: bool = False
    """Whether it is run only on what every attack before it left."""


def training_objective(loss: EmbeddingLoss | None) -> Objective:
    """The objective of the paper's protocol: the training loss, which for a softmax layer is cross-entropy."""
    return OBJECTIVES["cross-entropy"] if loss is None else through_embedding(loss)


def plan(
    settings: EvaluationSettings, threat: Threat, loss: EmbeddingLoss | None, *, published: bool
) -> list[PlannedAttack]:
    """The attacks of an evaluation: first those that decide, each on what all before it left, then measurements of all.

    - `quick`, if wanted: the attacks of AutoAttack with budgets that follow from what they find.
    - `standard`, if wanted: the attacks of AutoAttack.
    - `paper`: PGD on the training loss from the clean image (Serban et al. 2021, section 4.1).
    - `paper-as-published`, if wanted: the same with the published script's treatment of the images (see `published`).
    - `logits`: FGSM, and PGD on cross-entropy and margin from random starts.
    - FMN beside either of them: the minimum norm of all images, from which the curve follows.

    What `adaptive` adds needs the model: see `adaptive_plan`.
    """
    training = training_objective(loss)
    planned: list[PlannedAttack] = []
    if settings.attacks == "quick":
        planned += _members("quick", ensemble("quick"))
    elif settings.attacks != "paper":
        planned += _members("standard", ensemble("standard"))
    if settings.attacks != "paper":
        # The further walks of the long one find little that is nearer, for three times the passes.
        walk = FMN(targets=0) if settings.attacks == "quick" else FMN()
        planned.append(PlannedAttack("fmn", "FMN, minimum norm", "adaptive", walk))
    single = fgsm(OBJECTIVES["cross-entropy"], threat)
    planned.append(PlannedAttack("fgsm-cross-entropy", "FGSM, cross-entropy", "logits", single))

    def pgd(steps: int, what: str, group: Group, objective: Objective, *, random_start: bool, suffix: str = "") -> None:
        slug = f"{what.replace(' ', '-')}{suffix.replace(' ', '-').replace(',', '')}"
        attack = PGD(
            objective,
            steps=steps,
            step_size=settings.step_size,
            restarts=settings.restarts if random_start else 1,
            random_start=random_start,
        )
        # Several restarts make a longer attack start elsewhere the second time, so it does not continue a shorter one.
        series = slug if attack.restarts == 1 else None
        planned.append(PlannedAttack(f"pgd-{steps}-{slug}", f"PGD-{steps}, {what}{suffix}", group, attack, series))

    for steps in sorted(set(settings.steps)):
        pgd(steps, TRAINING_LOSS, "paper", training, random_start=False)
        for objective in LOGIT_OBJECTIVES:
            pgd(steps, objective, "logits", OBJECTIVES[objective], random_start=True)
        if published:
            pgd(steps, TRAINING_LOSS, "paper-as-published", training, random_start=False, suffix=", as published")
    return planned


def adaptive_plan(bench: Bench, threat: Threat, loss: EmbeddingLoss | None) -> list[PlannedAttack]:
    """What the adaptive ensemble adds to the standard one for this model, a surrogate to transfer from included."""
    some = bench.images[:SURROGATE_IMAGES].to(bench.device)
    everything = adaptive(
        prototypes=has_distances(bench.model),
        surrogate=train_surrogate(bench.model, some, threat, seed=bench.seed),
        training=None if loss is None else through_embedding(loss),
    )
    known = {member.name for member in ensemble("standard").members}
    return _members("adaptive", Ensemble(tuple(m for m in everything.members if m.name not in known)))


def _members(group: Group, members: Ensemble) -> list[PlannedAttack]:
    return [PlannedAttack(each.name, each.label, group, each.attack, survivors=True) for each in members.members]
