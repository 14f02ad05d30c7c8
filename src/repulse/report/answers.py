"""The two answers that a report gives first: how robust a model is, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from repulse.evaluation.verdict import caution, phrase
from repulse.report.blocks import Card
from repulse.report.group import Entry
from repulse.report.words import interval, percent, plain, threat, wilson

Sure = Literal["measured", "overstated", "upper-bound"]

_TONES: dict[Sure, Literal["good", "bad", "open"]] = {"measured": "good", "overstated": "bad", "upper-bound": "open"}

WORDS: dict[Sure, str] = {
    "measured": "measured",
    "overstated": "claim overstated",
    "upper-bound": "only an upper bound",
}
"""How sure a figure is, as a reader sees it."""


@dataclass(frozen=True)
class Answer:
    """How robust one model is, and how sure that is.

    Args:
        robust: the share of images that stay right, in [0, 1].
        natural: natural accuracy, in [0, 1].
        chance: accuracy of guessing, in [0, 1].
        phrase: `robust` in plain words.
        sure: None for a record without a verdict.
        claim: the figure that was claimed, or that a paper would print; None if there is none.
        claimant: whose figure that is; empty if there is none.
        caution: what a reader should know before anything else; may be empty.
    """

    robust: float
    natural: float
    chance: float
    phrase: str
    sure: Sure | None
    claim: float | None
    claimant: str
    caution: str

    @property
    def figure(self) -> str:
        """The robust accuracy as it may be said: an upper bound is marked as one."""
        return f"≤ {percent(self.robust)}" if self.sure == "upper-bound" else percent(self.robust)


def answer(entry: Entry) -> Answer:
    """Both answers for one evaluation."""
    record, verdict = entry.record, entry.record.verdict
    chance = 1 / max(len(record.data.class_names), 1)
    sure: Sure | None = None
    if verdict is not None:
        sure = verdict.word
        # Nothing is lower than nothing: zero is certain, whatever a check says.
        if sure == "upper-bound" and entry.robust == 0:
            sure = "measured"
    return Answer(
        robust=entry.robust,
        natural=record.natural_accuracy,
        chance=chance,
        phrase=phrase(entry.robust, record.natural_accuracy),
        sure=sure,
        claim=None if verdict is None else verdict.claim,
        claimant=claimant(entry),
        caution=plain(caution(record.natural_accuracy, chance, record.data.count)),
    )


def claimant(entry: Entry) -> str:
    """Whose number the verdict weighs: 'claimed', "the paper's protocol" or 'one attack alone'; empty if none."""
    verdict = entry.record.verdict
    if verdict is None or verdict.claim is None:
        return ""
    if verdict.claim_by == "claimed":
        return "claimed"
    by = {attack.label: attack.group for attack in entry.record.attacks}.get(verdict.claim_by)
    return "the paper's protocol" if by == "paper" else "one attack alone"


def card(entry: Entry) -> Card:
    """Both answers as a card."""
    found, record = answer(entry), entry.record
    low, high = wilson(found.robust, record.data.count)
    detail = (
        f"natural accuracy {percent(found.natural)}, chance {percent(found.chance)}; 95 %: "
        f"{interval(found.robust, record.data.count)}; {record.data.count:,} images, {threat(record)}"
    )
    return Card(
        title=entry.label,
        link=entry.anchor,
        label="robust accuracy, at most" if found.sure == "upper-bound" else "robust accuracy",
        figure=percent(found.robust),
        phrase=found.phrase,
        scale=(found.robust, low, high, found.natural, found.chance),
        detail=detail,
        sure="" if found.sure is None else WORDS[found.sure],
        tone="open" if found.sure is None else _TONES[found.sure],
        why=_why(entry, found),
        steps=_next(entry, found),
    )


def _why(entry: Entry, found: Answer) -> tuple[str, ...]:
    verdict, parts = entry.record.verdict, [found.caution] if found.caution else []
    if verdict is None:
        return tuple(parts)
    if found.sure == "overstated" and found.claim is not None:
        known = {"claimed": "The claim", "the paper's protocol": "The paper's protocol"}
        who = known.get(found.claimant, f"{verdict.claim_by} alone")
        parts.append(f"{who} says {percent(found.claim)}; {percent(found.robust)} is left.")
    elif found.sure == "upper-bound":
        parts += [plain(reason) for reason in verdict.reasons[:1]]
        parts.append("Don't quote this figure yet.")
    elif found.robust == 0:
        parts.append("Every image was fooled; no check can change that.")
    else:
        parts.append("No attack found more, and no check gives a reason to doubt the attacks.")
    return tuple(parts)


def _next(entry: Entry, found: Answer) -> tuple[str, ...]:
    """The one thing to do next: what the verdict asks for first, or else what to do with the figure."""
    verdict = entry.record.verdict
    if verdict is None:
        return ("Evaluate the model again: this record is older than verdicts.",)
    doubted = any(check.serious and check.passed is False for check in entry.record.checks)
    if found.sure == "overstated" and found.claim is not None and not (doubted and found.robust > 0):
        return (f"Quote {percent(found.robust)}, not {percent(found.claim)}.",)
    if verdict.next_steps and found.robust > 0:
        return (plain(verdict.next_steps[0]),)
    if found.robust == 0:
        return ("For a model that keeps more, train on adversarial examples: `repulse train` does.",)
    return ("Quote it with the norm, eps, the attacks and the number of images.",)
