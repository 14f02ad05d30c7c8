"""The verdict: how robust a model is, and how sure that is. Figures in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from repulse.common.errors import RepulseError
from repulse.common.units import in_percent
from repulse.evaluation.record import AttackRecord, CheckRecord, VerdictRecord

# By how much a paper-style figure may exceed the worst case: honest models lose a few points to stronger attacks, too.
PAPER_TOLERANCE = 0.05

# The normal quantile of a two-sided 95 % interval.
_Z = 1.959963984540054

# By how much a claimed figure may exceed the worst case, beyond the error of counting images.
CLAIM_TOLERANCE = 0.01

# What of all images the quick attacks may fool after their gradient ascents, for their small budgets to be enough.
SETTLED = 0.01

# Fewer images than this are said to be few before anything else.
FEW_IMAGES = 100

# The check of whether logits fit into float32.
SATURATION = "cross-entropy-has-a-gradient"


def judge(
    *,
    natural: float,
    attacks: Sequence[AttackRecord],
    worst: float,
    count: int,
    checks: Sequence[CheckRecord],
    claim: float | None = None,
    own_loss: bool = True,
    chance: float = 0.0,
) -> VerdictRecord:
    """Weigh a claim against the worst case and the checks.

    - `overstated`: a paper-style figure exceeds the worst case by more than 5 points, with 95 % confidence; or a
      figure that somebody claimed does by more than 1 point and two standard errors of counting.
    - `upper-bound`: it does not, but a serious check failed, no check was made, or too little was tried: no attack of
      the groups `standard` and `quick` ran; or only those of `quick` did, and what follows its gradient ascents (long
      searches, Square) still fooled more than 1 % of the images, so that small budgets were not enough.
    - `measured`: otherwise; and always where no image is robust, for nothing can be lower, whatever the checks say.

    Args:
        natural: share of images classified right.
        attacks: what each attack is, and the share of images that it left.
        worst: share of images that no attack fooled, attacks as the paper's script runs them aside.
        count: number of images.
        checks: what was checked.
        claim: a claimed robust accuracy, in [0, 1]; None: the figure that a paper would print.
        own_loss: whether the model was trained on another loss than cross-entropy of its logits. A paper then prints
            the lowest of the group `paper`, or else of the attacks of the group `logits` on cross-entropy. Otherwise it
            prints the lowest of PGD on any objective, unless the logits don't fit into float32: people attack
            cross-entropy, and it is by this that such logits mislead them.
        chance: natural accuracy of always naming the commonest class.

    Raises:
        RepulseError: if the claim does not lie in [0, 1].
    """
    if claim is not None and not 0 <= claim <= 1:
        raise RepulseError(f"a claimed robust accuracy is a share between 0 and 1, got {claim:g}; for 56 % give 0.56")
    counted = [attack for attack in attacks if attack.group != "paper-as-published"]
    error = 2 * sqrt(worst * (1 - worst) / count) if count else 1.0
    if claim is None:
        saturated = any(check.name == SATURATION and check.passed is False for check in checks)
        claim, claim_by = _paper_style(counted, natural, any_objective=not (own_loss or saturated))
        # Both figures are of the same images, and what fooled an image under the one counts under the other, so the
        # images between the two are one binomial count: the score test of whether 5 % of all explain it (Wilson 1927).
        slack = _Z * sqrt(PAPER_TOLERANCE * (1 - PAPER_TOLERANCE) / count) if count else 1.0
        tolerance = PAPER_TOLERANCE + slack
    else:
        claim_by, tolerance = "claimed", CLAIM_TOLERANCE + error
    # The first of several that found equally much: attacks run from the cheapest to the dearest.
    found_by = min(counted, key=_left).label if counted else "the model's own errors"
    serious = [check for check in checks if check.serious and check.passed is False]
    missing = []
    quick = _only_quick(counted)
    if quick is not None and quick > SETTLED + 1e-9:
        missing.append(
            (
                "The quick attacks are not enough for this model: what follows their gradient ascents still fooled "
                f"{in_percent(quick)} of the images.",
                "Run the attacks of AutoAttack with their own budgets: `--attacks standard`.",
            )
        )
    elif quick is None and not any(attack.group == "standard" for attack in counted):
        missing.append(("The attacks of AutoAttack were not run.", "Run them: `--attacks standard`."))
    if not checks:
        missing.append(("The model was not examined for masked gradients.", "Run the checks."))

    # Rounding of shares must not decide.
    overstated = claim - worst > tolerance + 1e-9
    certain = worst == 0 and count > 0
    if certain:
        missing = []
    reasons = [check.sentence for check in serious] + [reason for reason, _ in missing]
    next_steps = [check.remedy or check.sentence for check in serious] + [step for _, step in missing]
    if serious and not certain:
        next_steps.append(f"Until then {in_percent(worst)} is only an upper bound: a better attack may leave less.")
    if claim_by == "claimed" and claim < worst - tolerance:
        reasons.append(
            f"The claim of {in_percent(claim)} is lower than what was found here: if it comes from stronger attacks on "
            "the same images, quote the claim."
        )
    if quick is not None and not missing and not certain:
        next_steps.append(
            "Before you publish the figure, or compare it with others, run the attacks of AutoAttack with their own "
            "budgets: `--attacks standard`."
        )
    if error > 0.05:
        next_steps.append(f"Measure more images: with {count} the figure may be off by {100 * error:.0f} points.")

    at_most = f"at most {in_percent(worst)} of the images are robust"
    if overstated:
        word = "overstated"
        who = "The claim" if claim_by == "claimed" else claim_by
        # No figure is offered for quoting where a better attack may leave less.
        advice = f"{at_most}, perhaps fewer" if serious and not certain else f"{at_most}: quote {in_percent(worst)}"
        summary = f"{who} says {in_percent(claim)}, but {advice}. The attack that fooled the most is {found_by}."
    elif certain:
        word = "measured"
        summary = (
            f"Quote {in_percent(worst)} (natural accuracy {in_percent(natural)}): every image was fooled, and nothing "
            "can be lower, whatever the checks say."
        )
    elif serious or missing:
        word = "upper-bound"
        summary = (
            f"{at_most[0].upper()}{at_most[1:]} (natural accuracy {in_percent(natural)}), perhaps fewer: "
            f"{_doubt(serious)}."
        )
    else:
        word = "measured"
        budgets = "" if quick is None else ", under the quick attacks"
        summary = (
            f"Quote {in_percent(worst)}{budgets} (natural accuracy {in_percent(natural)}): no attack found more, "
            "and no check gives a reason to doubt that the attacks work."
        )
    return VerdictRecord.model_validate(
        {
            "word": word,
            "quote": worst,
            "robustness": phrase(worst, natural),
            "caution": caution(natural, chance, count),
            "found_by": found_by,
            "claim": claim,
            "claim_by": claim_by,
            "summary": summary,
            "reasons": tuple(reasons),
            "next_steps": tuple(dict.fromkeys(next_steps)),
        }
    )


def phrase(robust: float, natural: float) -> str:
    """Robust accuracy in neutral words, beside the images that are right at all; both shares in [0, 1]."""
    kept = robust / natural if natural > 0 else 0.0
    if robust == 0:
        return "none of the images stay right"
    if kept < 0.2:
        return "little is left"
    return "some of the images stay right" if kept < 0.5 else "most of what is right stays right"


def caution(natural: float, chance: float, count: int) -> str:
    """What must be said before any figure: a model near chance, or too few images; "" if there is nothing to say.

    Natural accuracy is near chance where that lies above the lower end of its 95 % interval (Wilson 1927).
    """
    if count and chance:
        middle = natural + _Z**2 / (2 * count)
        reach = _Z * sqrt(natural * (1 - natural) / count + (_Z / (2 * count)) ** 2)
        if (middle - reach) / (1 + _Z**2 / count) <= chance:
            return f"The model is no better than guessing ({in_percent(natural)} right without any attack)."
    return f"Only {count} images: the figure may be far off." if count < FEW_IMAGES else ""


def _doubt(serious: Sequence[CheckRecord]) -> str:
    if any(check.about == "attacks" for check in serious):
        return "checks show that attacks fail on this model for reasons other than robustness"
    return "the model is not used as it was meant to be" if serious else "too little was tried"


def _left(attack: AttackRecord) -> float:
    return attack.robust_accuracy


def _only_quick(attacks: Sequence[AttackRecord]) -> float | None:
    """What `quick` found after its gradient ascents; None if it didn't run, or if `standard` did."""
    quick = [attack for attack in attacks if attack.group == "quick"]
    if not quick or any(attack.group == "standard" for attack in attacks):
        return None
    ascents = [_left(attack) for attack in quick if attack.objective]
    return min(ascents, default=1.0) - min(map(_left, quick))


def _paper_style(attacks: Sequence[AttackRecord], natural: float, *, any_objective: bool) -> tuple[float, str]:
    """The figure that a paper would print: the lowest under its own protocol, or under PGD."""
    every = [attack for attack in attacks if attack.group in ("paper", "logits")]
    paper = [attack for attack in every if attack.group == "paper"]
    rivals = every if any_objective else paper or [attack for attack in every if attack.objective == "cross-entropy"]
    if not rivals:
        return natural, "natural accuracy"
    lowest = min(rivals, key=_left)
    return lowest.robust_accuracy, lowest.label
