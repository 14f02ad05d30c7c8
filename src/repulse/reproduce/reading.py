"""What the figures of a comparison say, in plain sentences made from the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from repulse.report.words import percent
from repulse.reproduce.claims import MISLEADING, papers_row, rivals_row
from repulse.reproduce.figures import Figures, Found, Row

# Families that differ in the output layer only: nothing in their training looks for adversarial examples or gradients.
GEOMETRY_ONLY = ("no defence", "fixed prototypes", "learned prototypes")

# Fewer methods than this have no correlation worth a word.
FEWEST = 4

# A sentence names no more methods than this.
NAMED = 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over methods, and the chance of one as strong without any relation."""

    rho: float
    p: float
    count: int


def correlation(
    rows: Sequence[Row], across: Callable[[Found], float | None], up: Callable[[Found], float | None]
) -> Correlation | None:
    """Of two figures over methods, each the mean over its seeds; None for too few methods, or figures all alike."""
    from scipy.stats import spearmanr

    pairs = [
        (x.mean, y.mean) for row in rows if (x := row.over(across)) is not None and (y := row.over(up)) is not None
    ]
    if len(pairs) < FEWEST or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return None
    found = spearmanr(*zip(*pairs, strict=True))
    return Correlation(float(found.statistic), float(found.pvalue), len(pairs))


def overall(figures: Figures) -> str:
    """The method that can be believed most, and the one whose paper-style figure misleads most."""
    if not figures.rows:
        return "Nothing is measured yet."
    best = max(figures.rows, key=lambda row: fmean(f.worst for f in row.found))
    text = f"Under every attack together most is left of {best.method}: {_mean(best, lambda f: f.worst)} of the images"
    text += f", at a natural accuracy of {_mean(best, lambda f: f.natural)}."
    gaps = [
        (fmean(f.protocol - f.worst for f in row.found if f.protocol is not None), row)
        for row in figures.rows
        if any(f.protocol is not None for f in row.found)
    ]
    if gaps:
        gap, row = max(gaps, key=lambda each: each[0])
        if gap > MISLEADING:
            text += (
                f" The paper's protocol misleads most on {row.method}: it leaves {_mean(row, lambda f: f.protocol)}, "
                f"all attacks together {_mean(row, lambda f: f.worst)}."
            )
        else:
            text += (
                f" Nowhere does the paper's protocol leave over {100 * MISLEADING:.0f} points more than all attacks."
            )
    return text


def heads(figures: Figures) -> str:
    """Whether prototypes in place of the softmax layer help adversarial training; empty if none has both."""
    pairs = [
        (row, other)
        for row in figures.rows
        if (other := figures.row(f"{row.method}-simplex")) is not None and row.about.family == "adversarial training"
    ]
    if not pairs:
        return ""
    gains = [fmean(f.worst for f in other.found) - fmean(f.worst for f in row.found) for row, other in pairs]
    parts = [f"{row.method} {100 * gain:+.1f}" for (row, _), gain in zip(pairs, gains, strict=True)]
    return (
        "Simplex prototypes in place of the softmax layer change the worst case of adversarial training by so many "
        f"points: {', '.join(parts)}; {100 * fmean(gains):+.1f} on average."
    )


def transfer(figures: Figures) -> str:
    """Which models are fooled by images of others, and whether that fools them more than their own gradient does."""
    matrix = figures.transfer
    methods = [name for name in matrix if len(matrix[name]) > 1]
    if len(methods) < 2:
        return ""
    left = {s: fmean(matrix[s][t] for t in matrix[s] if t != s) for s in methods}
    harmful = min(left, key=lambda name: left[name])
    text = (
        f"Images crafted on {harmful} transfer best: on average the other models still classify "
        f"{percent(left[harmful])} of them right."
    )
    fooled = []
    for target in methods:
        others = {s: matrix[s][target] for s in methods if s != target and target in matrix[s]}
        own = matrix[target].get(target)
        if others and own is not None and own - min(others.values()) > MISLEADING:
            strongest = min(others, key=lambda s: others[s])
            fooled.append((own - others[strongest], f"{target} by those of {strongest}"))
    by = f"by over {100 * MISLEADING:.0f} points more than its own gradient does"
    if fooled:
        worst = [words for _, words in sorted(fooled, reverse=True)[:NAMED]]
        return f"{text} Another model's images fool {len(fooled)} of {len(methods)} {by}, first {', '.join(worst)}."
    return f"{text} No model is fooled by another model's images {by}."


def separation(figures: Figures) -> str:
    """Whether separation goes with robustness: over all methods, and over those that differ in the output layer."""
    geometry = [row for row in figures.rows if row.about.family in GEOMETRY_ONLY]
    parts = [
        _said(correlation(rows, lambda f: f.angle, lambda f: f.worst), who, "the angle between class means")
        for rows, who in ((figures.rows, "all"), (geometry, "those that differ in the output layer only"))
    ]
    spread = _said(correlation(figures.rows, lambda f: f.spread, lambda f: f.worst), "all", "the spread within classes")
    return " ".join(part for part in (*parts, spread) if part)


def decay(figures: Figures) -> str:
    """How far the two lines of the paper's method and of its best rival lie apart, at twice eps."""
    own, rival = papers_row(figures), rivals_row(figures)
    rows = [row for row in (own, rival) if row is not None]
    parts = []
    for row in rows:
        eps = 2 * row.found[0].record.eps
        lines = [row.over(lambda f, e=eps, n=name: f.at(e, n)) for name in ("training loss", "worst case")]  # type: ignore[misc]
        if None not in lines:
            parts.append(f"{row.method} {percent(lines[0].mean)} and {percent(lines[1].mean)}")  # type: ignore[union-attr]
    return f"At twice eps, under the paper's protocol and in the worst case: {'; '.join(parts)}." if parts else ""


def _said(found: Correlation | None, who: str, what: str) -> str:
    if found is None:
        return ""
    figure = f"rank correlation {found.rho:+.2f}, p = {found.p:.2g}, {found.count} methods"
    if found.p >= 0.05:
        return f"Over {who}, {what} tells nothing certain of the worst case ({figure})."
    direction = "more" if found.rho > 0 else "less"
    return f"Over {who}, the larger {what}, the {direction} is left in the worst case ({figure})."


def _mean(row: Row, figure: Callable[[Found], float | None]) -> str:
    found = row.over(figure)
    return "–" if found is None else percent(found.mean)
