"""The paper claim by claim: what its protocol says, what is left under every attack, and the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from repulse.common.units import in_255ths
from repulse.reproduce.comparisons import DIGITS
from repulse.reproduce.figures import PLAIN, TRAINING_LOSS, WORST_CASE, Figures, Result, Row, Spread, spread

NOT_MEASURED = "not measured"

# By how much the paper's method may be slower than plain training before its cost counts as added.
SAME_COST = 1.1
# Below this robust accuracy at eps there is too little left to watch it decay.
TOO_LITTLE = 0.05
# A figure under the protocol that is so much above the worst case misleads.
MISLEADING = 0.05


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Args:
        text: what the paper says.
        protocol: what was measured as the paper measures it.
        worst: what is left under every attack.
        verdict: whether the claim holds, in words.
        network: what it was measured on, and what training that cost.
    """

    text: str
    protocol: str
    worst: str
    verdict: str
    network: str = ""


def claims(figures: Figures) -> tuple[Claim, ...]:
    """The paper's four claims, each with what this comparison says of it.

    Of the paper's methods the one that does best under the paper's own protocol stands for all.
    """
    return (
        _accuracy(figures, "paper-cifar10", "CIFAR-10", robust=0.5, natural=0.92),
        _accuracy(figures, "paper-cifar100", "CIFAR-100", robust=0.2, natural=0.71),
        _decay(figures),
        _cost(figures),
    )


def papers_row(figures: Figures) -> Row | None:
    """The paper's method that does best under the paper's protocol; None if none was measured."""
    return _best(figures, lambda row: row.about.is_papers, lambda r: r.protocol)


def rivals_row(figures: Figures) -> Row | None:
    """The adversarially trained method with the best worst case; None if none was measured."""
    return _best(figures, lambda row: row.about.family == "adversarial training", lambda r: r.worst)


def _best(figures: Figures, which: Callable[[Row], bool], figure: Callable[[Result], float | None]) -> Row | None:
    ranked = [(value.mean, row) for row in figures.rows if which(row) and (value := row.over(figure)) is not None]
    return max(ranked, key=lambda each: each[0])[1] if ranked else None


def _accuracy(figures: Figures, name: str, data: str, *, robust: float, natural: float) -> Claim:
    text = f"{data}: over {100 * robust:.0f} % robust at {100 * natural:.0f} % natural accuracy"
    row = papers_row(figures)
    if figures.grid.name != name or figures.grid.data == DIGITS or row is None:
        return Claim(text, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED)
    clean, protocol, worst = row.over(lambda r: r.natural), row.over(lambda r: r.protocol), row.over(lambda r: r.worst)
    if clean is None or protocol is None or worst is None:
        return Claim(text, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED)
    at = f"at {clean.share} natural accuracy"
    if worst.mean >= robust and clean.mean >= natural:
        verdict = "holds"
    elif protocol.mean >= robust and clean.mean >= natural:
        verdict = "holds under its protocol only: overstated"
    else:
        verdict = "not reached" if figures.grid.scale == "full" else f"not reached at scale {figures.grid.scale}"
        if protocol.mean - worst.mean > MISLEADING:
            verdict += ", and what is reached is overstated"
    who = row.method if protocol.count > 1 else f"{row.method}, one seed"
    minutes = statistics.fmean(result.seconds for result in row.results) / 60
    network = f"{row.results[0].record.model.description}; {minutes:,.0f} min of training"
    return Claim(text, f"{protocol.share} {at} ({who})", f"{worst.share} {at}", verdict, network)


def _decay(figures: Figures) -> Claim:
    text = "Robustness decays slower at large eps than that of adversarial training"
    own, rival = papers_row(figures), rivals_row(figures)
    if own is None or rival is None:
        return Claim(text, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED)
    (protocol, slower_there), (worst, slower) = (_kept(own, rival, line) for line in (TRAINING_LOSS, WORST_CASE))
    if slower_there is None and slower is None:
        return Claim(text, protocol, worst, NOT_MEASURED)
    if slower is None:
        verdict = "cannot be asked: nothing is left that could decay"
        verdict += "; holds under its protocol only" if slower_there else ""
    elif slower:
        verdict = "holds"
    else:
        verdict = "holds under its protocol only" if slower_there else "does not hold"
    return Claim(text, protocol, worst, verdict)


def _kept(own: Row, rival: Row, line: str) -> tuple[str, bool | None]:
    """What is kept of robust accuracy from eps to twice eps, in words; and whether the first keeps more."""
    parts, kept = [], []
    for row in (own, rival):
        eps = row.results[0].record.eps
        near, far = (spread(r.at(each, line) for r in row.results) for each in (eps, 2 * eps))
        if near is None or far is None:
            return NOT_MEASURED, None
        parts.append(f"{row.method} {near.share} to {far.share}")
        kept.append(far.mean / near.mean if near.mean >= TOO_LITTLE else None)
    words = f"from eps {in_255ths(own.results[0].record.eps)} to twice that: {'; '.join(parts)}"
    return words, None if kept[0] is None or kept[1] is None else kept[0] > kept[1]


def _cost(figures: Figures) -> Claim:
    text = "Training costs no more than without a defence"
    row = papers_row(figures)
    seconds = None if row is None else row.over(lambda r: figures.relative(r, lambda o: o.seconds))
    passes = None if row is None else row.over(lambda r: figures.relative(r, lambda o: o.passes))
    if row is None or seconds is None or passes is None:
        return Claim(text, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED)
    same = passes.mean <= 1.0 + 1e-9
    if same and seconds.mean <= SAME_COST:
        verdict = "holds"
    elif same and _within(seconds):
        verdict = "holds, as far as the spread of the seconds lets one tell"
    else:
        verdict = "holds in passes, not in seconds" if same else "does not hold"
    return Claim(
        text,
        f"{passes.number()} times the passes of {PLAIN} ({row.method})",
        f"{seconds.number()} times the seconds of {PLAIN}",
        verdict,
    )


def _within(seconds: Spread) -> bool:
    return seconds.std is not None and seconds.mean - seconds.std <= SAME_COST
