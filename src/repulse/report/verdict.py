"""The verdict: its word, the number to quote beside the one that was claimed, why, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from repulse.evaluation.record import Record
from repulse.report.group import Entry
from repulse.report.words import interval, percent, plain, setting

# The word is always written; sign and tone only repeat it.
_SIGNS = {"believable": "✓", "overstated": "✗", "not established": "?"}
_TONES = {"believable": "good", "overstated": "bad", "not established": "open"}


@dataclass(frozen=True, eq=False)
class Card:
    """A verdict as the page shows it; accuracies are in per cent.

    Args:
        entry: the evaluation.
        setting: what it measured on.
        word: the verdict.
        sign: a sign for it.
        tone: a style of the page.
        quote: the number to quote.
        quote_detail: its 95 % interval, and the attack behind it.
        claim: the number that was claimed; empty if there is none.
        claim_what: whose number that is.
        claim_detail: the attack behind it.
        summary: the verdict in one or two sentences.
        reasons: for it.
        next_steps: what to run or mend next.
    """

    entry: Entry
    setting: str
    word: str
    sign: str
    tone: str
    quote: str
    quote_detail: str
    claim: str
    claim_what: str
    claim_detail: str
    summary: str
    reasons: tuple[str, ...]
    next_steps: tuple[str, ...]


def card(entry: Entry) -> Card | None:
    """The card of an evaluation; None if its record has no verdict."""
    record = entry.record
    verdict = record.verdict
    if verdict is None:
        return None
    detail = f"95 %: {interval(verdict.quote, record.data.count)}"
    if verdict.found_by:
        detail += f"; found by {plain(verdict.found_by)}"
    return Card(
        entry=entry,
        setting=plain(setting(record)),
        word=verdict.word,
        sign=_SIGNS[verdict.word],
        tone=_TONES[verdict.word],
        quote=percent(verdict.quote),
        quote_detail=detail,
        claim="" if verdict.claim is None else percent(verdict.claim),
        claim_what=claimant(record),
        claim_detail="" if verdict.claim_by == "claimed" else plain(verdict.claim_by),
        summary=plain(verdict.summary),
        reasons=tuple(plain(each) for each in verdict.reasons),
        next_steps=tuple(plain(each) for each in verdict.next_steps),
    )


def claimant(record: Record) -> str:
    """Whose number the verdict weighs: 'claimed', "the paper's protocol" or 'one attack alone'; empty if none."""
    verdict = record.verdict
    if verdict is None or verdict.claim is None:
        return ""
    if verdict.claim_by == "claimed":
        return "claimed"
    by = {attack.label: attack.group for attack in record.attacks}.get(verdict.claim_by)
    return "the paper's protocol" if by == "paper" else "one attack alone"
