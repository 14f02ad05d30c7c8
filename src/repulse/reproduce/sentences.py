"""What the figures of a comparison say, in plain sentences made from the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from repulse.report.words import percent
from repulse.reproduce.claims import MISLEADING, papers_row, rivals_row
from repulse.reproduce.figures import TRAINING_LOSS, WORST_CASE, Figures, Result, Row

# Families that differ in the output layer only: nothing in their training looks for adversarial examples or gradients.
GEOMETRY_ONLY = ("no defence", "fixed prototypes", "learned prototypes")

# Fewer methods than this have no correlation worth a word.
_FEWEST = 4

# A sentence names no more methods than this.
_NAMED = 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over methods, and the chance of one as strong without any relation."""

    rho: float
    p: float
    count: int


def correlation(
    rows: Sequence[Row], across: Callable[[Result], float | None], up: Callable[[Result], float | None]
) -> Correlation | None:
    """Of two figures over methods, each the mean over its seeds; None for too few methods, or figures all alike."""
    from scipy.stats import spearmanr

    pairs = [
        (x.mean, y.mean) for row in rows if (x := row.over(across)) is not None and (y := row.over(up)) is not None
    ]
    if len(pairs) < _FEWEST or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return None
    found = spearmanr(*zip(*pairs, strict=True))
    return Correlation(float(found.statistic), float(found.pvalue), len(pairs))


def correlations(figures: Figures) -> dict[str, Correlation | None]:
    """Of separation and robustness: over all methods, and over those that differ in the output layer only."""
    geometry = [row for row in figures.rows if row.about.family in GEOMETRY_ONLY]
    return {
        "angle, all methods": correlation(figures.rows, lambda r: r.angle, lambda r: r.worst),
        "angle, output layer only": correlation(geometry, lambda r: r.angle, lambda r: r.worst),
        "spread, all methods": correlation(figures.rows, lambda r: r.spread, lambda r: r.worst),
    }


def overall(figures: Figures) -> str:
    """The method of which most is left, and the one whose paper-style figure misleads most."""
    if not figures.rows:
        return "Nothing is measured yet."
    best = max(figures.rows, key=lambda row: row.mean(lambda r: r.worst))
    text = f"Under every attack together most is left of {best.method}: {percent(best.mean(lambda r: r.worst))} of the "
    text += f"images, at a natural accuracy of {percent(best.mean(lambda r: r.natural))}."

    def gap(result: Result) -> float | None:
        return None if result.protocol is None else result.protocol - result.worst

    if gaps := [(row.mean(gap), row) for row in figures.rows if row.over(gap) is not None]:
        largest, row = max(gaps, key=lambda each: each[0])
        if largest > MISLEADING:
            text += (
                f" The paper's protocol misleads most on {row.method}: it leaves "
                f"{percent(row.mean(lambda r: r.protocol))}, all attacks together "
                f"{percent(row.mean(lambda r: r.worst))}."
            )
        else:
            text += (
                f" Nowhere does the paper's protocol leave over {100 * MISLEADING:.0f} points more than all attacks."
            )
    return text


def heads(figures: Figures) -> str:
    """Whether prototypes in place of the softmax layer help adversarial training; empty if none has both."""
    gains = {
        row.method: other.mean(lambda r: r.worst) - row.mean(lambda r: r.worst)
        for row in figures.rows
        if (other := figures.row(f"{row.method}-simplex")) is not None and row.about.family == "adversarial training"
    }
    if not gains:
        return ""
    parts = [f"{method} {_signed(100 * gain, 1)}" for method, gain in gains.items()]
    return (
        "Simplex prototypes in place of the softmax layer change the worst case of adversarial training by so many "
        f"points: {', '.join(parts)}; {_signed(100 * fmean(gains.values()), 1)} on average."
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
        worst = [words for _, words in sorted(fooled, reverse=True)[:_NAMED]]
        return f"{text} Another model's images fool {len(fooled)} of {len(methods)} {by}, first {', '.join(worst)}."
    return f"{text} No model is fooled by another model's images {by}."


def separation(figures: Figures) -> str:
    """Whether separation goes with robustness."""
    angle, geometry, within = correlations(figures).values()
    parts = [
        _relation(angle, "all", "the angle between class means"),
        _relation(geometry, "those that differ in the output layer only", "the angle between class means"),
        _relation(within, "all", "the spread within classes"),
    ]
    return " ".join(part for part in parts if part)


def decay(figures: Figures) -> str:
    """How far the two lines of the paper's method and of its best rival lie apart, at twice eps."""
    parts = []
    for row in (papers_row(figures), rivals_row(figures)):
        if row is None:
            continue
        eps = 2 * row.results[0].record.eps
        protocol = row.over(lambda r, eps=eps: r.at(eps, TRAINING_LOSS))  # type: ignore[misc]
        worst = row.over(lambda r, eps=eps: r.at(eps, WORST_CASE))  # type: ignore[misc]
        if protocol is not None and worst is not None:
            parts.append(f"{row.method} {percent(protocol.mean)} and {percent(worst.mean)}")
    return f"At twice eps, under the paper's protocol and in the worst case: {'; '.join(parts)}." if parts else ""


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _relation(found: Correlation | None, who: str, what: str) -> str:
    if found is None:
        return ""
    figure = f"rank correlation {_signed(found.rho, 2)}, p = {found.p:.2g}, {found.count} methods"
    if found.p >= 0.05:
        return f"Over {who}, {what} tells nothing certain of the worst case ({figure})."
    direction = "more" if found.rho > 0 else "less"
    return f"Over {who}, the larger {what}, the {direction} is left in the worst case ({figure})."
