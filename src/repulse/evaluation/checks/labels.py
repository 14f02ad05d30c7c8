"""Whether the labels number the classes as the model does, and whether the model knows the data at all."""

from __future__ import annotations

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import OWN_SOURCE, Finding, check, share_of
from repulse.evaluation.checks.readings import GAIN, best_reading, far_better
from repulse.evaluation.checks.usage import Usage


@check(
    "labels-fit",
    Usage,
    question="Do the labels number the classes as the model does?",
    source=f"{OWN_SOURCE}; best assignment: Kuhn 1955",
    serious=True,
    threshold=GAIN,
)
def labels_fit(seen: Usage) -> Finding:
    """How many more of the images would be right with labels read in another way."""
    advice, right, better = best_reading(seen)
    gain = max(share_of(better) - share_of(right), 0.0)
    if not far_better(better, right):
        sentence = "Neither labels that count from 1 nor classes in another order fit the model much better."
        return Finding(gain, sentence, True)
    sentence = (
        f"The model is right on {in_percent(share_of(right))} of the images with these labels, but would be on "
        f"{in_percent(share_of(better))} with others: {advice}."
    )
    return Finding(gain, sentence, False)


@check(
    "better-than-chance",
    Usage,
    question="Does the model know the data at all?",
    source=OWN_SOURCE,
    serious=False,
    limit="at least",
)
def better_than_chance(seen: Usage) -> Finding:
    """Natural accuracy, against that of always naming the commonest class and two standard errors."""
    commonest = float(seen.labels.bincount().max()) / len(seen.labels)
    threshold = min(commonest + 2 * (commonest * (1 - commonest) / len(seen.labels)) ** 0.5, 1.0)
    measured = share_of(seen.right)
    if threshold == 1:
        sentence = "There are too few images, or too few classes among them, to tell the model from chance."
        return Finding(None, sentence, threshold=threshold)
    passed = measured > threshold
    if passed:
        sentence = f"The model is right on {in_percent(measured)} of the images, more than a guess would be."
    else:
        sentence = (
            f"The model is right on {in_percent(measured)} of the images, no better than always naming the commonest "
            "class. Make sure that the weights were loaded, and that images and labels are those it was made for."
        )
    return Finding(measured, sentence, passed, threshold)
