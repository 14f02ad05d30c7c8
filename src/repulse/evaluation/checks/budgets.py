"""Whether a larger ball, more steps or smaller ones do what they must."""

from __future__ import annotations

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import Finding, check, share_of
from repulse.evaluation.checks.evidence import STEPS, Evidence


@check(
    "robust-accuracy-falls-as-eps-grows",
    Evidence,
    question="Does robust accuracy fall as the ball grows?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist",
    threshold=0.03,
    serious=True,
    passed="It never rises, as it must be.",
    failed="A larger ball holds the smaller one, so an attack that finds less in it is failing.",
    remedy="Use more steps and restarts at every eps, and attacks that adapt their steps: `--attacks standard`.",
)
def falling(seen: Evidence) -> Finding:
    """The largest rise of robust accuracy from one eps to a larger one."""
    shares = [share_of(robust) for robust in seen.ladder.values()]
    rise = max(later - earlier for i, earlier in enumerate(shares) for later in shares[i + 1 :])
    at = ", ".join(f"{100 * share:.1f}" for share in shares)
    return Finding(max(rise, 0.0), f"At eps times {', '.join(f'{m:g}' for m in seen.ladder)} PGD leaves {at} %.")


@check(
    "the-whole-space-is-not-robust",
    Evidence,
    question="Does the attack always succeed if it may change the image at will?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist; Pintor et al. 2022",
    threshold=0.05,
    serious=True,
    passed="The attack works.",
    failed="If anything is allowed nothing can be robust, so the attack is failing.",
    remedy="Find out why gradients don't lead to other classes before quoting any figure.",
)
def whole_space(seen: Evidence) -> Finding:
    """Robust accuracy under PGD where the ball is the whole range of pixels."""
    share = share_of(seen.whole_space)
    return Finding(share, f"Allowed every image there is, PGD failed on {in_percent(share)} of the images.")


@check(
    "many-steps-beat-one",
    Evidence,
    question="Do many small steps find all that one large step finds?",
    source="Athalye et al. 2018, section 3.1",
    threshold=0.03,
    serious=True,
    passed="Following the gradient pays, as it should.",
    failed="Gradients nearby mislead the attack: the model hides its weakness instead of having none.",
    remedy="Add random starts and attacks that use no gradients: `--attacks adaptive`.",
)
def iterative(seen: Evidence) -> Finding:
    """Share of images that a single step fooled and many steps did not."""
    share = share_of(seen.ladder[1.0] & seen.cross_entropy & ~seen.single_step)
    return Finding(share, f"One step fooled {in_percent(share)} of the images that PGD-{STEPS} did not.")


@check(
    "more-steps-change-little",
    Evidence,
    question="Would more steps and restarts find more?",
    source="Carlini et al. 2019, checklist (attacks have converged)",
    threshold=0.03,
    serious=True,
    passed="The figure has settled.",
    failed="The attacks had not found what there is to find; more of them would find still more.",
    remedy="Run stronger attacks: `--attacks standard`, more steps, more restarts.",
)
def converged(seen: Evidence) -> Finding:
    """Share of images that a longer PGD fooled, beyond all attacks of the evaluation."""
    baseline = seen.survivors if seen.found else seen.ladder[1.0]
    share = share_of(baseline & ~seen.more_steps(50, 2))
    return Finding(
        share, f"PGD-50 with two new starts fooled {in_percent(share)} of the images beyond all other attacks."
    )
