"""Run the attacks of an evaluation, and keep what each found, what it cost, and the worst case."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from repulse.attacks import PGD, Threat
from repulse.attacks.fmn import FMN
from repulse.evaluation.bench import Bench, Outcome
from repulse.evaluation.plan import PlannedAttack, adaptive_plan, plan
from repulse.evaluation.published import AsPublished
from repulse.evaluation.record import AttackRecord, Group
from repulse.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, eq=False)
class Findings:
    """What the planned attacks found, and the worst case over those that count."""

    records: list[AttackRecord]
    outcomes: dict[str, Outcome]
    worst: Outcome

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


def run_attacks(bench: Bench, settings: EvaluationSettings, threat: Threat) -> Findings:
    """Run the plan. In the worst case, the first attack that fooled an image stands for it."""
    script = _script_bench(bench) if settings.norm == "linf" else None
    loss = bench.subject.training_loss
    outcomes: dict[str, Outcome] = {}
    records: list[AttackRecord] = []
    worst: Outcome | None = None
    todo = plan(settings, threat, loss, published=script is not None)
    if settings.attacks == "adaptive":
        todo += adaptive_plan(bench, threat, loss)
    for planned in todo:
        if script is not None and planned.group == "paper-as-published":
            outcome = script.attack(planned.attack, threat, planned.label, after=outcomes.get(planned.continues or ""))
            records.append(_attack_record(planned, threat, outcome, script, added=None))
        else:
            after = worst if planned.survivors else outcomes.get(planned.continues or "")
            if isinstance(planned.attack, FMN):
                outcome = bench.minimum(planned.attack, threat, planned.label)
            else:
                outcome = bench.attack(planned.attack, threat, planned.label, after=after)
            before = bench.right if worst is None else worst.robust
            added = int((before & ~outcome.robust).sum())
            records.append(_attack_record(planned, threat, outcome, bench, added))
            worst = outcome if worst is None else outcome.after(worst)
        outcomes[planned.name] = outcome
    assert worst is not None, "a plan always has attacks on the logits"
    return Findings(records, outcomes, worst)


def _script_bench(bench: Bench) -> Bench | None:
    """A bench for the model as the paper's script attacks it, on images as that sees them; None if it cannot."""
    if bench.random or not AsPublished.fits(bench.model):
        return None
    model = AsPublished(bench.model)
    images = torch.cat([model.normalise(part.to(bench.device)).cpu() for part in torch.split(bench.images, 1000)])
    return Bench(replace(bench.subject, model=model, images=images), variant="as published")


def _attack_record(
    planned: PlannedAttack, threat: Threat, outcome: Outcome, bench: Bench, added: int | None
) -> AttackRecord:
    settings = {
        field.name: value
        for field in fields(planned.attack)  # type: ignore[arg-type]
        if isinstance(value := getattr(planned.attack, field.name), (bool, int, float, str))
    }
    if isinstance(planned.attack, PGD):
        settings.setdefault("step_size", threat.eps / 4)
    if planned.group == "paper-as-published":
        settings["natural_accuracy"] = _share(bench.right)
    forward, backward = outcome.passes.total
    if planned.continues is not None:
        settings["only_survivors_of"] = planned.continues
    return AttackRecord(
        name=planned.name,
        label=planned.label,
        group=planned.group,
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
