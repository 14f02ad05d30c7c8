"""How figures are said: percentages, intervals, threat models, attacks, and what the figures mean."""

from __future__ import annotations

import math
from collections.abc import Iterable

from repulse.common.units import in_255ths
from repulse.evaluation.record import AttackRecord, Record

# The normal quantile of a two-sided 95 % interval.
_Z = 1.959963984540054

# A smaller gap between the paper's protocol and the worst case is not worth a sentence.
OVERSTATED = 0.02

NORMS = {"linf": "L-inf", "l2": "L2"}


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage to a tenth: '19.7 %', with a space that does not break."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """A number with so many digits after the point, and a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of `count` independent images (Wilson 1927).

    Unlike the normal interval it stays in [0, 1], and does not vanish at 0 or 1.
    """
    centre = share + _Z**2 / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def interval(share: float, count: int) -> str:
    """The Wilson interval in words: '17.3 to 22.3 %'."""
    low, high = wilson(share, count)
    return f"{100 * low:.1f} to {percent(high)}"


def note(share: float, count: int) -> str:
    """The interval as a note beside a figure."""
    return f"95 % interval {interval(share, count)}"


def threat(record: Record) -> str:
    """The ball of a record: 'L-inf, eps 8/255'."""
    return f"{NORMS[record.norm]}, eps {in_255ths(record.eps)}"


def grey_levels(norm: str, radii: Iterable[float]) -> int:
    """What a picture multiplies radii by: 255 where all are whole grey levels, as tables say them, else 1."""
    return 255 if norm == "linf" and all(abs(255 * r - round(255 * r)) < 1e-6 for r in radii) else 1


def setting(record: Record) -> str:
    """What was measured on: 'CIFAR-10, test, 1,000 images, L-inf, eps 8/255'."""
    return f"{record.data.name}, {record.data.split}, {record.data.count:,} images, {threat(record)}"


def attack_settings(attack: AttackRecord, record: Record) -> str:
    """The settings of an attack in words, the unknown ones by their names."""
    rest = dict(attack.settings)
    parts = []
    steps, size = rest.pop("steps", None), rest.pop("step_size", None)
    if steps is not None:
        parts.append(f"{steps} step{'' if steps == 1 else 's'}")
        if isinstance(size, float):
            parts[-1] += f" of {in_255ths(size)}"
    start = rest.pop("random_start", None)
    if start is not None:
        parts.append("from a random point" if start else "from the clean image")
    if (restarts := rest.pop("restarts", 1)) != 1:
        parts.append(f"{restarts} starts")
    if (shorter := rest.pop("only_survivors_of", None)) is not None:
        known = {other.name: other.label for other in record.attacks}
        parts.append(f"on what survived {known.get(str(shorter), str(shorter))}")
    natural = rest.pop("natural_accuracy", None)
    if isinstance(natural, float):
        parts.append(f"natural accuracy on the images as it sees them {percent(natural)}")
    right = round(record.data.count * record.natural_accuracy)
    if shorter is None and natural is None and attack.attacked is not None and attack.attacked < right:
        parts.append(f"on the {attack.attacked:,} images that the attacks before it left")
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in rest.items()]
    return "; ".join(parts)


def strongest_paper_attack(record: Record) -> AttackRecord | None:
    """The attack of the paper's protocol that leaves the least; None if the record has none."""
    return min(
        (a for a in record.attacks if a.group == "paper"), key=lambda attack: attack.robust_accuracy, default=None
    )


def overstatement(record: Record) -> float | None:
    """By how much (in [0, 1]) the paper's protocol overstates robustness under the attacks tried; None if not run."""
    paper = strongest_paper_attack(record)
    return None if paper is None else paper.robust_accuracy - record.worst_case_accuracy


def is_overstated(record: Record) -> bool:
    """Whether the number that was claimed is: the verdict's word, or without one, a gap worth a sentence."""
    gap = overstatement(record)
    return record.verdict.word == "overstated" if record.verdict else gap is not None and gap > OVERSTATED


def finding(record: Record) -> str:
    """What the figures say, in one or two sentences: the paper's protocol and the worst case side by side.

    Where there is a verdict, judging is left to it.
    """
    count = len([attack for attack in record.attacks if attack.group != "paper-as-published"])
    worst = (
        f"Of {record.data.count:,} images the model classifies {percent(record.natural_accuracy)} right; "
        f"{percent(record.worst_case_accuracy)} stay right under every one of {count} attacks ({threat(record)})."
    )
    paper, gap = strongest_paper_attack(record), overstatement(record)
    if paper is None or gap is None:
        return f"{worst} The paper's protocol was not run."
    stated = f"Under the paper's protocol ({paper.label}) {percent(paper.robust_accuracy)} stay right"
    if record.verdict is not None:
        return f"{worst} {stated}."
    if gap > OVERSTATED:
        # The points are those of the rounded figures, so that the reader's subtraction agrees.
        points = round(100 * paper.robust_accuracy, 1) - round(100 * record.worst_case_accuracy, 1)
        return f"{worst} {stated}: overstated by {points:.1f} points, under the attacks tried here."
    return f"{worst} {stated}; the worst case lies within {100 * OVERSTATED:.0f} points of it."


def precision(record: Record) -> str:
    """How exact accuracies over that many images are, said once beside a table."""
    low, high = wilson(0.5, record.data.count)
    return (
        f"Shares of {record.data.count:,} images: 95 % Wilson intervals reach at most {50 * (high - low):.1f} points "
        "to either side. A worst case holds for the attacks that were run; a stronger attack may leave less."
    )


def plain(text: str, limit: int | None = None) -> str:
    """Text from outside on one line, without control characters, and cut to `limit` characters if one is given."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"
