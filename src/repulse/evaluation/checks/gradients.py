"""Whether gradients tell an attack which way to go."""

from __future__ import annotations

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import Finding, check, share_of
from repulse.evaluation.checks.evidence import Evidence


@check(
    "the-model-is-deterministic",
    Evidence,
    question="Does the model answer the same question twice in the same way?",
    source="Athalye et al. 2018, section 3 (stochastic gradients); Pintor et al. 2022",
    threshold=0.0,
    serious=True,
    passed="What an attack found stays found.",
    failed="Attacks that follow a single draw of a random model chase noise, and make it look robust.",
    remedy="Attack the model in expectation, or switch its randomness off.",
)
def deterministic(seen: Evidence) -> Finding:
    """Share of images whose logits differ between two calls."""
    share = share_of(seen.unsteady)
    return Finding(share, f"Asked twice, the model gave {in_percent(share)} of the images different logits.")


@check(
    "the-margin-has-a-gradient",
    Evidence,
    question="Do gradients tell an attack which way to go?",
    source="Athalye et al. 2018, section 3; Pintor et al. 2022",
    threshold=0.05,
    serious=True,
    passed="Attacks by gradients can be trusted to move.",
    failed="Without a gradient such attacks stand still and find nothing, however weak the model is.",
    remedy="`--attacks adaptive` attacks through rounding, detaching and thresholds by a smooth stand-in (BPDA).",
)
def margin_gradient(seen: Evidence) -> Finding:
    """Share of images at which the gradient of the margin is zero or not a number."""
    share = share_of(seen.gradient_of("margin").vanished)
    return Finding(share, f"At {in_percent(share)} of the images the margin of the logits has no usable gradient.")


@check(
    "cross-entropy-has-a-gradient",
    Evidence,
    question="Do the logits fit into float32, so that cross-entropy has a gradient?",
    source="Croce & Hein 2020, section 4; Carlini & Wagner 2017",
    threshold=0.05,
    serious=False,
    passed="Attacks on cross-entropy can move.",
    failed="There attacks on cross-entropy stand still; only those on margins or ratios of logits count.",
    remedy="Ignore attacks on cross-entropy, or divide the logits by a constant first.",
)
def saturation(seen: Evidence) -> Finding:
    """Share of images at which cross-entropy is exactly zero, or its gradient is zero or not a number."""
    found = seen.gradient_of("cross-entropy")
    share = share_of((found.values == 0) | found.vanished)
    return Finding(
        share, f"At {in_percent(share)} of the images cross-entropy is exactly zero or has no usable gradient."
    )


@check(
    "gradients-are-spread-over-the-input",
    Evidence,
    question="Does the gradient use the whole input, not single coordinates?",
    source="Participation ratio: Bell & Dean 1970",
    limit="at least",
    threshold=0.01,
    serious=False,
    passed="Steps along the gradient use what the ball allows.",
    failed="Steps along it use few of the coordinates that the ball allows to change; a better attack may use more.",
    remedy="Look for an operation that passes the gradient of one coordinate only, such as a maximum.",
)
def participation(seen: Evidence) -> Finding:
    """Median of how many coordinates carry the gradient, `(sum |g|)^2 / sum g^2`, from 1 to dim brought to [0, 1]."""
    found = seen.gradient_of("margin")
    flat = found.gradient.flatten(1)[~found.vanished].abs()
    dim = seen.x[0].numel()
    if len(flat) == 0 or dim == 1:
        return Finding(None, "There is no gradient to look at." if dim > 1 else "The input has one coordinate only.")
    # Scaled by its largest entry first: the square of a tiny gradient is zero in float32.
    flat = flat / flat.amax(1, keepdim=True)
    carrying = (flat.sum(1).square() / flat.square().sum(1)).median().item()
    share = (carrying - 1) / (dim - 1)
    return Finding(share, f"On the middle image about {carrying:.0f} of {dim} coordinates carry the gradient.")


@check(
    "gradients-keep-their-promise",
    Evidence,
    question="Does a small step along the gradient do what the gradient promises?",
    source="Athalye et al. 2018, section 3 (shattered gradients)",
    limit="at least",
    threshold=0.75,
    serious=True,
    passed="The gradient describes the model as it is.",
    failed="The gradient is not that of the model, or the model changes in jumps: attacks are sent the wrong way.",
    remedy="`--attacks adaptive` attacks a smooth stand-in for the jumps (BPDA), and without gradients.",
)
def promises(seen: Evidence) -> Finding:
    """Share of images at which the margin rises by 1/4 to 4 times of what the gradient says, over a step of eps/10."""
    share = share_of(seen.kept_promises)
    return Finding(
        share, f"A step of a tenth of eps did about what the gradient promises on {in_percent(share)} of the images."
    )
