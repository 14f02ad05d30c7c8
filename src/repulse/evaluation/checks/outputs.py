"""Whether the outputs are logits, one for each class."""

from __future__ import annotations

from repulse.evaluation.checks.check import OWN_SOURCE, Finding, check, share_of
from repulse.evaluation.checks.usage import Usage


@check(
    "class-count",
    Usage,
    question="Does the model have as many outputs as the data has classes?",
    source=OWN_SOURCE,
    serious=False,
    unit="count",
)
def class_count(seen: Usage) -> Finding:
    """The number of outputs."""
    outputs = seen.logits.shape[1]
    if outputs == seen.classes:
        sentence = f"The model has one output for each of the {outputs} classes."
    else:
        sentence = (
            f"The model has {outputs} outputs, but the data has {seen.classes} classes: images given to the other "
            "outputs count as errors. Use a model made for these classes, or keep their outputs only."
        )
    return Finding(float(outputs), sentence, passed=outputs == seen.classes, threshold=float(seen.classes))


@check(
    "logits-not-probabilities",
    Usage,
    question="Does the model give logits, not probabilities?",
    source="AutoAttack's own checks; Croce & Hein 2020",
    serious=False,
    threshold=0.99,
    remedy="Remove the softmax at the end of the model.",
)
def probabilities(seen: Usage) -> Finding:
    """Share of images whose outputs are probabilities."""
    sums = seen.logits.sum(1)
    are_probabilities = (seen.logits >= -1e-6).all(1) & ((sums - 1).abs() <= 1e-3)
    are_logarithms = (seen.logits <= 1e-6).all(1) & (seen.logits.logsumexp(1).abs() <= 1e-3)
    share = share_of(are_probabilities) if seen.logits.shape[1] > 1 else 0.0
    # A few rows of logits may add up to 1 by accident; all of them do not.
    passed = share < 0.99
    if not passed:
        sentence = (
            "The outputs are probabilities. Remove the softmax at the end of the model: with it, attacks on "
            "cross-entropy get a gradient that is squashed twice, and find less than there is."
        )
    elif share_of(are_logarithms) >= 0.99:
        sentence = "The outputs are logarithms of probabilities, which serve attacks as well as logits do."
    else:
        sentence = "The outputs are not probabilities, so attacks get the gradient of the logits themselves."
    return Finding(share, sentence, passed=passed)
