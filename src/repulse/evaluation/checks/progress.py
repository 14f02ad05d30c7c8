"""Whether the attack gets anywhere, and had finished when it stopped."""

from __future__ import annotations

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import Finding, check, share_of
from repulse.evaluation.checks.evidence import STEPS, Evidence


@check(
    "the-margin-rises-along-the-attack",
    Evidence,
    question="Does the attack get nearer to its aim as it goes?",
    source="Pintor et al. 2022",
    limit="at least",
    threshold=0.9,
    serious=True,
    passed="The attack climbs as it should.",
    failed="An attack that ends no higher than it began is broken or misled, and says nothing about robustness.",
    remedy="Try smaller steps and other objectives; look at the loss surface in the report.",
)
def rising(seen: Evidence) -> Finding:
    """Share of images for which the margin at the end of PGD is above that at the start."""
    share = share_of(seen.path[-1] > seen.path[0])
    return Finding(
        share, f"PGD-{STEPS} ended nearer to a wrong class than it began on {in_percent(share)} of the images."
    )


@check(
    "the-attack-levels-off",
    Evidence,
    question="Had the attack finished when it stopped?",
    source="Pintor et al. 2022 (incomplete optimization)",
    threshold=0.1,
    serious=False,
    passed="It was not stopped halfway.",
    failed="It was still getting better when it stopped: more or larger steps may find more.",
    remedy="Use more steps, or an attack that adapts its steps (APGD): `--attacks standard`.",
)
def finished(seen: Evidence) -> Finding:
    """Median share of the whole rise of the best margin that falls into the last quarter of the steps."""
    best = seen.path.cummax(0).values
    rise = best[-1] - best[0]
    rising = rise > 0
    if not rising.any():
        return Finding(None, "The attack never got better at all.")
    last = best[-1] - best[-1 - STEPS // 4]
    share = (last[rising] / rise[rising]).median().item()
    return Finding(
        share, f"On the middle image {in_percent(share)} of what PGD-{STEPS} gained came in its last quarter."
    )


@check(
    "no-success-is-thrown-away",
    Evidence,
    question="Does an attack that looks at its last image only miss successes on the way?",
    source="Pintor et al. 2022 (silent success)",
    threshold=0.05,
    serious=False,
    passed="Tools that keep only the last image see the same.",
    failed="Tools that keep only the last image overstate this model; the attacks here keep every success.",
    remedy="Compare only with tools that count every step's image.",
)
def silent_success(seen: Evidence) -> Finding:
    """Share of images that some step of PGD fooled and the last one did not."""
    share = share_of((seen.path > 0).any(0) & (seen.path[-1] <= 0))
    return Finding(
        share, f"PGD-{STEPS} fooled the model on its way but not at its end on {in_percent(share)} of the images."
    )
