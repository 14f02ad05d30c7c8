"""Whether an answer depends on the model's mode or on the other images of a batch."""

from __future__ import annotations

import torch

from repulse.evaluation.checks.check import Finding, check
from repulse.evaluation.checks.usage import BATCH, Usage

# Of the logits of an image alone and in a batch, relative to the spread of the logits.
TOLERANCE = 1e-3


@check(
    "evaluation-mode",
    Usage,
    question="Was the model handed over in evaluation mode?",
    source="PyTorch's documentation of torch.nn.Module.eval",
    serious=False,
    threshold=0.0,
    unit="count",
)
def evaluation_mode(seen: Usage) -> Finding:
    """How many kinds of layer that behave differently in training were in training mode."""
    layers = seen.training_layers
    if layers:
        sentence = (
            f"The model was handed over in training mode, with {', '.join(layers)} inside. It is measured in "
            "evaluation mode here; call `model.eval()` wherever else it is used."
        )
    else:
        sentence = "No layer that behaves differently in training was left in training mode."
    return Finding(float(len(layers)), sentence)


@check(
    "no-batch-dependence",
    Usage,
    question="Does the answer for an image leave aside the other images of its batch?",
    source="PyTorch's documentation of BatchNorm (track_running_stats); RobustBench: Croce et al. 2021",
    serious=True,
    unit="value",
)
def batch_dependence(seen: Usage) -> Finding:
    """How far the logits of images alone are from those in a batch, in units of the spread of the logits."""
    batch = seen.images[:BATCH]
    # Sums are ordered differently in batches of another size, and bfloat16 rounds each at the third digit.
    threshold = max(TOLERANCE, 8 * seen.precision)
    if len(batch) < 2:
        return Finding(None, "There is one image only, so it has no neighbours to depend on.", threshold=threshold)
    if seen.stochastic:
        sentence = "The model is stochastic, so that its answers differ for any batch; this was not asked."
        return Finding(None, sentence, threshold=threshold)
    together = seen.model(batch)
    alone = torch.cat([seen.model(image[None]) for image in batch[:8]])
    # A model may rule classes out by -inf.
    finite = together.isfinite()
    spread = (together[finite].amax() - together[finite].amin()).clamp_min(1e-12)
    differences = (alone - together[: len(alone)]).abs()[finite[: len(alone)]]
    measured = float(differences.amax() / spread)
    if measured <= threshold:
        sentence = "Alone and in a batch, an image gets the same logits."
    else:
        sentence = (
            f"Alone, an image gets logits that differ by {measured:.2g} of their range from those in a batch, so no "
            "figure for single images exists. Normalise with running statistics, not with those of the batch."
        )
    return Finding(measured, sentence, threshold=threshold)
