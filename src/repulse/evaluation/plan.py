"""Which attacks an evaluation runs: the paper's protocol, and always beside it attacks on the logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from repulse.attacks import OBJECTIVES, PGD, Attack, EmbeddingLoss, Objective, Threat, fgsm, through_embedding
from repulse.attacks.ensemble import Ensemble, adaptive, ensemble
from repulse.attacks.fmn import FMN
from repulse.attacks.prototype_objectives import has_distances
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.record import Group
from repulse.evaluation.settings import EvaluationSettings
from repulse.evaluation.surrogate import train_surrogate

# Objectives that look at the logits, and so don't depend on how the model was trained.
LOGIT_OBJECTIVES = ("cross-entropy", "margin")

TRAINING_LOSS = "training loss"

# The model is asked several times for each, which must stay cheap beside the attacks.
SURROGATE_IMAGES = 1000


# The ensembles that are groups of their own in a record.
_GROUPS: dict[str, Group] = {"quick": "quick", "standard": "standard"}


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


def plan(runner: AttackRunner, settings: EvaluationSettings, threat: Threat, *, published: bool) -> list[PlannedAttack]:
    """The attacks of an evaluation: first those that decide, each on what all before it left, then measurements of all.

    - `quick`, if wanted: the attacks of AutoAttack with budgets that follow from what they find.
    - `standard`, if wanted: the attacks of AutoAttack.
    - `adaptive`, if wanted: these, and everything else that might find more, a surrogate to transfer from included.
    - `chosen`: other ensembles, and attacks on their own, by their names.
    - `paper`: PGD on the training loss from the clean image (Serban et al. 2021, section 4.1).
    - `paper-as-published`, if wanted: the same with the published script's treatment of the images (see `published`).
    - `logits`: FGSM, and PGD on cross-entropy and margin from random starts.
    - FMN beside any of them: the minimum norm of all images, from which the curve follows.
    """
    training = training_objective(runner.subject.training_loss)
    planned: list[PlannedAttack] = []
    for name in settings.chosen:
        if name == "adaptive":
            planned += _members("standard", ensemble("standard")) + _adaptive(runner, threat)
        else:
            planned += _members(_GROUPS.get(name, "chosen"), ensemble(name))
    if settings.chosen:
        # The further walks of the long one find little that is nearer, for three times the passes.
        walk = FMN() if {"standard", "adaptive"} & set(settings.chosen) else FMN(targets=0)
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
    return _each_once(planned)


def _each_once(planned: list[PlannedAttack]) -> list[PlannedAttack]:
    """The attacks without repetitions; different ones of one name are told apart by their groups."""
    kept: dict[str, PlannedAttack] = {}
    for each in planned:
        same = kept.get(each.name)
        if same is not None and (same.attack, same.survivors) != (each.attack, each.survivors):
            each = replace(each, name=f"{each.name}-{each.group}", label=f"{each.label}, {each.group}")
        kept.setdefault(each.name, each)
    return list(kept.values())


def _adaptive(runner: AttackRunner, threat: Threat) -> list[PlannedAttack]:
    """What the adaptive ensemble adds to the standard one for this model, a surrogate to transfer from included."""
    some, loss = runner.images[:SURROGATE_IMAGES].to(runner.device), runner.subject.training_loss
    everything = adaptive(
        prototypes=has_distances(runner.model),
        surrogate=train_surrogate(runner.model, some, threat, seed=runner.seed),
        training=None if loss is None else through_embedding(loss),
    )
    known = {member.name for member in ensemble("standard").members}
    return _members("adaptive", Ensemble(tuple(m for m in everything.members if m.name not in known)))


def _members(group: Group, members: Ensemble) -> list[PlannedAttack]:
    return [PlannedAttack(each.name, each.label, group, each.attack, survivors=True) for each in members.members]
