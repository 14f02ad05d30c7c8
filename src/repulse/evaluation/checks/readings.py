"""Other ways to read the labels: counted from 1, or naming the classes in another order than the model does."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from repulse.evaluation.checks.check import share_of
from repulse.evaluation.checks.usage import Usage, surely_more

# By how much another reading of the labels must beat the one that was given; see `far_better`.
GAIN = 0.2


def explained_by_labels(seen: Usage) -> float:
    """The share of images that would be right with labels read in another way, if that is far better; else 0."""
    _, right, better = best_reading(seen)
    return share_of(better) if far_better(better, right) else 0.0


def best_reading(seen: Usage) -> tuple[str, Bool[Tensor, "M"], Bool[Tensor, "M"]]:
    """What to do for the best of the other readings, where the labels as given are right, and where it would be."""
    readings: dict[str, Tensor] = {
        "they are one too high; subtract 1 from every label": seen.predicted == seen.labels - 1,
        "they are one too low; add 1 to every label, or drop the model's first output": (
            seen.predicted == seen.labels + 1
        ),
    }
    best = max(readings, key=lambda reading: share_of(readings[reading]))
    right, better = seen.right, readings[best]
    order, judged = _best_order(seen)
    # Chosen on one half of the images and judged on the other, or an order would fit by its many choices.
    reordered = order[seen.predicted[judged]] == seen.labels[judged]
    if far_better(reordered, seen.right[judged]) and share_of(reordered) > share_of(better[judged]) + 0.05:
        return _describe(order, seen), seen.right[judged], reordered
    return best, right, better


def far_better(other: Bool[Tensor, "M"], given: Bool[Tensor, "M"]) -> bool:
    """Whether one reading is far better than another: 20 points, half the errors or 3 times as often right, surely."""
    ours, theirs = share_of(other), share_of(given)
    much = 2 * (1 - ours) <= 1 - theirs or ours >= 3 * theirs
    return ours - theirs > GAIN and much and surely_more(other, given, 3.0)


def _best_order(seen: Usage) -> tuple[Int64[Tensor, "n"], Bool[Tensor, "M"]]:
    """The label that fits each output best on half of the images, -1 for none; and which images are the other half."""
    judged = torch.arange(len(seen.labels)) % 2 == 1
    outputs = seen.logits.shape[1]
    counts = torch.zeros(seen.classes, outputs, dtype=torch.int64)
    counts.index_put_(
        (seen.labels[~judged], seen.predicted[~judged]), torch.ones(1, dtype=torch.int64), accumulate=True
    )
    from scipy.optimize import linear_sum_assignment

    label, output = linear_sum_assignment(counts.numpy(), maximize=True)
    order = torch.full((outputs,), -1)
    chosen, fitting = torch.from_numpy(output), torch.from_numpy(label)
    # Where no image speaks for a pair, it was picked only because something had to be.
    spoken = counts[fitting, chosen] > 0
    order[chosen[spoken]] = fitting[spoken]
    return order, judged


def _describe(order: Tensor, seen: Usage) -> str:
    moved = [(output, label) for output, label in enumerate(order.tolist()) if label not in (-1, output)]
    some = ", ".join(f"{output} is label {label}" for output, label in moved[:3])
    said = f"the classes are in another order (the model's output {some}{', ...' if len(moved) > 3 else ''}); "
    names, known = seen.class_names, sorted(order.tolist()) == list(range(len(seen.class_names)))
    if names and known and len(names) <= 20 and not any("," in name for name in names):
        return f"{said}use `--class-names {','.join(names[label] for label in order)}`{_sorted_as_text(names)}"
    return f"{said}name the classes in the order in which the model was trained{_sorted_as_text(names)}"


def _sorted_as_text(names: tuple[str, ...]) -> str:
    """A hint where names are numbers, which sort as text in another order than as numbers."""
    numbers = [int(name) for name in names if name.isdecimal()]
    sorted_as_text = len(numbers) == len(names) > 0 and list(names) == sorted(names) != sorted(names, key=int)
    return " (the classes are named by numbers, and stand as text does: 1, 10, 2)" if sorted_as_text else ""
