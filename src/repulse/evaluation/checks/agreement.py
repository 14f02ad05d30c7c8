"""Whether attacks that should tell the same story do."""

from __future__ import annotations

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import Finding, check, share_of
from repulse.evaluation.checks.evidence import STEPS, Evidence


@check(
    "no-black-box-success",
    Evidence,
    question="Does an attack without gradients succeed where those with gradients failed?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist",
    threshold=0.02,
    serious=True,
    passed="Gradients show all that can be seen without them.",
    failed="Who knows less cannot find more, unless the gradients mislead.",
    remedy="Run all attacks that use no gradients: `--attacks adaptive`; find the operation that spoils gradients.",
)
def black_box(seen: Evidence) -> Finding:
    """Share of images that black-box attacks of the evaluation, or random points, fooled beyond all the others."""
    own = share_of(seen.random_points(25))
    gained = seen.black_box_gain()
    share = own if gained is None else max(own, share_of(gained))
    return Finding(share, f"Attacks without gradients fooled {in_percent(share)} of the images beyond all others.")


@check(
    "the-training-loss-agrees",
    Evidence,
    question="Does the attack on the training loss find what attacks on the logits find?",
    source="Carlini et al. 2019, checklist (adaptive attacks)",
    threshold=0.05,
    serious=False,
    passed="The two tell the same story.",
    failed="The training loss hides the way to images that fool the model: quote the worst case.",
    remedy="Quote the worst case over all attacks, not the one on the training loss.",
)
def training_loss(seen: Evidence) -> Finding:
    """Robust accuracy under attacks on the training loss, minus that under the others with gradients."""
    paper, logits = seen.group("paper"), seen.group("logits", "quick", "standard")
    if paper is None or logits is None:
        return Finding(None, "No attack on the training loss ran beside attacks on the logits.")
    share = max(share_of(paper) - share_of(logits), 0.0)
    return Finding(share, f"The training loss left {in_percent(share)} of the images more than the logits did.")


@check(
    "cross-entropy-agrees-with-the-margin",
    Evidence,
    question="Do attacks on cross-entropy and on the margin agree?",
    source="Croce & Hein 2020, section 4; Carlini & Wagner 2017",
    threshold=0.05,
    serious=False,
    passed="Neither objective flatters the model.",
    failed="Cross-entropy flatters this model, as it does with scaled logits and hyperspherical heads.",
    remedy="Quote attacks on margins or ratios of logits.",
)
def objectives_agree(seen: Evidence) -> Finding:
    """Robust accuracy under PGD on cross-entropy, minus that under PGD on the margin."""
    share = max(share_of(seen.cross_entropy) - share_of(seen.ladder[1.0]), 0.0)
    return Finding(
        share, f"PGD-{STEPS} on cross-entropy left {in_percent(share)} of the images more than on the margin."
    )
