"""Run the attacks of an evaluation, and keep what each found, what it cost, and the worst case."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from repulse.attacks import PGD, Threat
from repulse.attacks.minimum_norm import seeks_minimum
from repulse.attacks.passes import Passes
from repulse.common.progress import expect
from repulse.common.progress import found as known
from repulse.common.units import in_percent
from repulse.evaluation.attack_runner import AttackRunner, Outcome
from repulse.evaluation.forecast import coming
from repulse.evaluation.plan import PlannedAttack, plan
from repulse.evaluation.published import AsPublished
from repulse.evaluation.record import AttackRecord, Group
from repulse.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, eq=False)
class Findings:
    """What the planned attacks found, and the worst case over those that count."""

    records: list[AttackRecord]
    outcomes: dict[str, Outcome]
    worst: Outcome
    runs: tuple[Outcome, ...] = ()
    """Attacks as they ran, kept so that none runs again while this is held."""

    @property
    def groups(self) -> dict[str, Group]:
        """The group of each attack."""
        return {record.name: record.group for record in self.records}

    @property
    def counted(self) -> dict[str, Outcome]:
        """The outcomes that count in the worst case."""
        return {name: self.outcomes[name] for name, group in self.groups.items() if group != "paper-as-published"}

    def fooled_by(self, right: Bool[Tensor, "N"]) -> Int32[Tensor, "N"]:
        """The place in the record of the first attack that counts and fooled each image; see `record` for the rest."""
        first = torch.where(right, -1, -2).int()
        for place, record in enumerate(self.records):
            if record.name in self.counted:
                first[(first == -1) & ~self.outcomes[record.name].robust] = place
        return first

    def cost(self) -> dict[str, Tensor]:
        """What all attacks together spent on each image."""
        outcomes = self.outcomes.values()
        queries = torch.stack([outcome.passes.forward + outcome.passes.backward for outcome in outcomes])
        seconds = torch.stack([outcome.seconds for outcome in outcomes])
        return {"queries": queries.sum(0).int(), "seconds": seconds.sum(0).float()}


def run_attacks(runner: AttackRunner, settings: EvaluationSettings, threat: Threat) -> Findings:
    """Run the plan. In the worst case, the first attack that fooled an image stands for it."""
    script = _script_runner(runner) if settings.norm == "linf" else None
    todo = plan(runner, settings, threat, published=script is not None)
    if not runner.has_gradients:
        # The others would stand still, pass after pass. PGD is run all the same where it is all that was asked for.
        todo = [each for each in todo if each.attack.black_box or each.attack.own_slopes] or todo
    outcomes: dict[str, Outcome] = {}
    records: list[AttackRecord] = []
    series: dict[str, _Series] = {}
    worst: Outcome | None = None
    for place, planned in enumerate(todo):
        standing = runner.right if worst is None else worst.robust
        left = [each for each in todo[place:] if each.series is None or each.series not in series]
        expect(runner.progress, coming(left, settings, threat, int(runner.right.sum()), int(standing.sum())))
        apart = script is not None and planned.group == "paper-as-published"
        on = script if script is not None and apart else runner
        shorter = None
        if planned.series is not None:
            if planned.series not in series:
                series[planned.series] = _Series.run(on, [e for e in todo if e.series == planned.series], threat)
            outcome, shorter = series[planned.series].next(on, planned)
        elif seeks_minimum(planned.attack) and not planned.survivors:
            outcome = on.minimum(planned.attack, threat, planned.label)
        else:
            outcome = on.attack(planned.attack, threat, planned.label, after=worst if planned.survivors else None)
        added = None
        if not apart:
            added = int((standing & ~outcome.robust).sum())
            worst = outcome if worst is None else outcome.after(worst)
            known(runner.progress, f"robust so far {in_percent(_share(worst.robust))}")
        records.append(_attack_record(planned, threat, outcome, on, added, shorter))
        outcomes[planned.name] = outcome
    assert worst is not None, "a plan always has attacks on the logits"
    return Findings(records, outcomes, worst, tuple(each.whole for each in series.values()))


@dataclass(eq=False)
class _Series:
    """The longest of some attacks that differ in their steps only, and which of the shorter ones came last."""

    whole: Outcome
    last: tuple[str, Outcome] | None = None

    @classmethod
    def run(cls, runner: AttackRunner, members: list[PlannedAttack], threat: Threat) -> _Series:
        longest = max(members, key=_steps)
        return cls(runner.attack(longest.attack, threat, longest.label))

    def next(self, runner: AttackRunner, planned: PlannedAttack) -> tuple[Outcome, str | None]:
        """What the attack had found after its steps, at the cost of those beyond a shorter one, and its name."""
        found = runner.first_steps(self.whole, _steps(planned))
        before, self.last = self.last, (planned.name, found)
        if before is None:
            return found, None
        name, shorter = before
        passes = Passes(found.passes.forward - shorter.passes.forward, found.passes.backward - shorter.passes.backward)
        more = replace(
            found, passes=passes, seconds=found.seconds - shorter.seconds, attacked=int(shorter.robust.sum())
        )
        return more, name


def _steps(planned: PlannedAttack) -> int:
    assert isinstance(planned.attack, PGD), "only PGD comes in series"
    return planned.attack.steps


def _script_runner(runner: AttackRunner) -> AttackRunner | None:
    """For the model as the paper's script attacks it, on images as that sees them; None if it cannot."""
    if runner.random or not AsPublished.fits(runner.model):
        return None
    model = AsPublished(runner.model)
    images = torch.cat([model.normalise(part.to(runner.device)).cpu() for part in torch.split(runner.images, 1000)])
    return AttackRunner(replace(runner.subject, model=model, images=images), variant="as published", pictures=0)


def _attack_record(
    planned: PlannedAttack,
    threat: Threat,
    outcome: Outcome,
    runner: AttackRunner,
    added: int | None,
    shorter: str | None,
) -> AttackRecord:
    settings = {
        field.name: value
        for field in fields(planned.attack)  # type: ignore[arg-type]
        if isinstance(value := getattr(planned.attack, field.name), (bool, int, float, str))
    }
    if isinstance(planned.attack, PGD):
        settings.setdefault("step_size", threat.eps / 4)
    if planned.group == "paper-as-published":
        settings["natural_accuracy"] = _share(runner.right)
    forward, backward = outcome.passes.total
    if shorter is not None:
        settings["only_survivors_of"] = shorter
    return AttackRecord(
        name=planned.name,
        label=planned.label,
        group=planned.group,
        objective=planned.attack.climbs,
        black_box=planned.attack.black_box,
        minimum_norm=planned.attack.minimum_norm,
        norm=threat.norm,
        eps=threat.eps,
        settings=settings,
        robust_accuracy=_share(outcome.robust),
        seconds=outcome.seconds.sum().item(),
        forward_passes=forward,
        backward_passes=backward,
        largest_perturbation=outcome.largest,
        attacked=outcome.attacked,
        added=added,
    )


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()
