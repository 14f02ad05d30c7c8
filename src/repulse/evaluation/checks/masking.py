"""Is the robust accuracy believable? Checks that give away attacks which fail for reasons other than robustness.

A check is one function that measures one figure, and one entry of `CHECKS` that says what is asked, how much is
allowed, and what it means for somebody who is no expert. The verdict reads them: see `verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from repulse.attacks import Threat
from repulse.common.registry import Registry
from repulse.common.units import in_percent
from repulse.evaluation.bench import Bench, Outcome
from repulse.evaluation.checks.probes import STEPS, Evidence
from repulse.evaluation.record import CheckRecord, Group

Seen = tuple[float | None, str]
"""The measured figure, and what was seen in words; no figure where the question cannot be asked."""


@dataclass(frozen=True)
class Check:
    """One question, and how to read its answer.

    Args:
        question: as a reader would ask it.
        source: paper and section.
        limit: whether the measured figure may be at most, or must be at least, the threshold.
        threshold: of the measured figure, a share of images unless said otherwise.
        serious: whether failing it means that the robust accuracy cannot be trusted.
        passed: what it means that the figure keeps to the threshold.
        failed: what it means that it does not.
        remedy: what to do when it fails.
        find: measures the figure.
    """

    question: str
    source: str
    limit: Literal["at most", "at least"]
    threshold: float
    serious: bool
    passed: str
    failed: str
    remedy: str
    find: Callable[[Evidence], Seen]

    def answer(self, name: str, evidence: Evidence) -> CheckRecord:
        """Ask it."""
        measured, seen = self.find(evidence) if len(evidence) else (None, "The model classifies no image right.")
        passed = None
        if measured is not None:
            passed = measured <= self.threshold if self.limit == "at most" else measured >= self.threshold
        return CheckRecord(
            name=name,
            question=self.question,
            passed=passed,
            serious=self.serious,
            measured=measured,
            threshold=self.threshold,
            sentence=seen if passed is None else f"{seen} {self.passed if passed else self.failed}",
            source=self.source,
        )


CHECKS: Registry[Check] = Registry("check")


def examine(
    bench: Bench,
    threat: Threat,
    found: Mapping[str, Outcome],
    groups: Mapping[str, Group],
    *,
    images: int = 128,
) -> tuple[CheckRecord, ...]:
    """Ask every check of `CHECKS` about a model and what attacks found.

    The checks run cheap attacks of their own on some of the images that the model classifies right. Shares are shares
    of those images, or, where outcomes of the evaluation are compared, of all that are classified right.

    Args:
        bench: the model and its images.
        threat: the ball of the evaluation.
        found: outcomes on all images of the bench by attack, in the order in which they ran; an outcome may hold
            the successes of earlier attacks too.
        groups: the group of each of these attacks.
        images: how many images the checks look at, at most.

    Returns:
        One record for each check; where it cannot be asked, `passed` is None and the sentence says why.
    """
    evidence = Evidence.gather(bench, threat, found, groups, images if threat.eps > 0 else 0)
    records = []
    # The dice of a random model are thrown anew, the same at every run, and those of the caller are left alone.
    with torch.random.fork_rng([bench.device] if bench.device.type == "cuda" else []):
        torch.manual_seed(evidence.seed)
        for done, (name, check) in enumerate(CHECKS.items()):
            records.append(check.answer(name, evidence))
            bench.progress("checks", done + 1, len(CHECKS))
    return tuple(records)


def _check(
    name: str,
    question: str,
    *,
    source: str,
    limit: Literal["at most", "at least"] = "at most",
    threshold: float,
    serious: bool,
    passed: str,
    failed: str,
    remedy: str,
) -> Callable[[Callable[[Evidence], Seen]], Callable[[Evidence], Seen]]:
    def enter(find: Callable[[Evidence], Seen]) -> Callable[[Evidence], Seen]:
        CHECKS.register(name)(Check(question, source, limit, threshold, serious, passed, failed, remedy, find))
        return find

    return enter


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()


@_check(
    "the-model-is-deterministic",
    "Does the model answer the same question twice in the same way?",
    source="Athalye et al. 2018, section 3 (stochastic gradients); Pintor et al. 2022",
    threshold=0.0,
    serious=True,
    passed="What an attack found stays found.",
    failed="Attacks that follow a single draw of a random model chase noise, and make it look robust.",
    remedy="Attack the model in expectation, or switch its randomness off.",
)
def deterministic(seen: Evidence) -> Seen:
    """Share of images whose logits differ between two calls."""
    share = _share(seen.unsteady)
    return share, f"Asked twice, the model gave {in_percent(share)} of the images different logits."


@_check(
    "the-margin-has-a-gradient",
    "Do gradients tell an attack which way to go?",
    source="Athalye et al. 2018, section 3; Pintor et al. 2022",
    threshold=0.05,
    serious=True,
    passed="Attacks by gradients can be trusted to move.",
    failed="Without a gradient such attacks stand still and find nothing, however weak the model is.",
    remedy="Attack a smooth stand-in for the steps that have no gradient (rounding, detaching, thresholds): BPDA.",
)
def margin_gradient(seen: Evidence) -> Seen:
    """Share of images at which the gradient of the margin is nought or not a number."""
    share = _share(seen.slope("margin").vanished)
    return share, f"At {in_percent(share)} of the images the margin of the logits has no usable gradient."


@_check(
    "cross-entropy-has-a-gradient",
    "Do the logits fit into float32, so that cross-entropy has a gradient?",
    source="Croce & Hein 2020, section 4; Carlini & Wagner 2017",
    threshold=0.05,
    serious=False,
    passed="Attacks on cross-entropy can move.",
    failed="There attacks on cross-entropy stand still; only those on margins or ratios of logits count.",
    remedy="Ignore attacks on cross-entropy, or divide the logits by a constant first.",
)
def saturation(seen: Evidence) -> Seen:
    """Share of images at which cross-entropy is exactly nought, or its gradient is nought or not a number."""
    slope = seen.slope("cross-entropy")
    share = _share((slope.values == 0) | slope.vanished)
    return share, f"At {in_percent(share)} of the images cross-entropy is exactly zero or has no usable gradient."


@_check(
    "gradients-are-spread-over-the-input",
    "Does the gradient use the whole input, not single coordinates?",
    source="Participation ratio: Bell & Dean 1970",
    limit="at least",
    threshold=0.01,
    serious=False,
    passed="Steps along the gradient use what the ball allows.",
    failed="Steps along it use few of the coordinates that the ball allows to change; a better attack may use more.",
    remedy="Look for an operation that passes the gradient of one coordinate only, such as a maximum.",
)
def participation(seen: Evidence) -> Seen:
    """Median of how many coordinates carry the gradient, `(sum |g|)^2 / sum g^2`, from 1 to dim brought to [0, 1]."""
    slope = seen.slope("margin")
    flat = slope.gradient.flatten(1)[~slope.vanished].abs()
    dim = seen.x[0].numel()
    if len(flat) == 0 or dim == 1:
        return None, "There is no gradient to look at." if dim > 1 else "The input has one coordinate only."
    # Scaled by its largest entry first: the square of a tiny gradient is nought in float32.
    flat = flat / flat.amax(1, keepdim=True)
    carrying = (flat.sum(1).square() / flat.square().sum(1)).median().item()
    share = (carrying - 1) / (dim - 1)
    return share, f"On the middle image about {carrying:.0f} of {dim} coordinates carry the gradient."


@_check(
    "gradients-keep-their-promise",
    "Does a small step along the gradient do what the gradient promises?",
    source="Athalye et al. 2018, section 3 (shattered gradients)",
    limit="at least",
    threshold=0.75,
    serious=True,
    passed="The gradient describes the model as it is.",
    failed="The gradient is not that of the model, or the model changes in jumps: attacks are sent the wrong way.",
    remedy="Attack a smooth stand-in for the jumps (BPDA), and without gradients: `--attacks adaptive`.",
)
def promises(seen: Evidence) -> Seen:
    """Share of images at which the margin rises by 1/4 to 4 times of what the gradient says, over a step of eps/10."""
    share = _share(seen.kept_promises)
    return share, f"A step of a tenth of eps did about what the gradient promises on {in_percent(share)} of the images."


@_check(
    "the-margin-rises-along-the-attack",
    "Does the attack get nearer to its aim as it goes?",
    source="Pintor et al. 2022",
    limit="at least",
    threshold=0.9,
    serious=True,
    passed="The attack climbs as it should.",
    failed="An attack that ends no higher than it began is broken or misled, and says nothing about robustness.",
    remedy="Try smaller steps and other objectives; look at the loss surface in the report.",
)
def rising(seen: Evidence) -> Seen:
    """Share of images for which the margin at the end of PGD is above that at the start."""
    share = _share(seen.path[-1] > seen.path[0])
    return share, f"PGD-{STEPS} ended nearer to a wrong class than it began on {in_percent(share)} of the images."


@_check(
    "the-attack-levels-off",
    "Had the attack finished when it stopped?",
    source="Pintor et al. 2022 (incomplete optimization)",
    threshold=0.1,
    serious=False,
    passed="It was not stopped halfway.",
    failed="It was still getting better when it stopped: more or larger steps may find more.",
    remedy="Use more steps, or an attack that adapts its steps (APGD): `--attacks standard`.",
)
def finished(seen: Evidence) -> Seen:
    """Median share of the whole rise of the best margin that falls into the last quarter of the steps."""
    best = seen.path.cummax(0).values
    rise = best[-1] - best[0]
    rising = rise > 0
    if not rising.any():
        return None, "The attack never got better at all."
    last = best[-1] - best[-1 - STEPS // 4]
    share = (last[rising] / rise[rising]).median().item()
    return share, f"On the middle image {in_percent(share)} of what PGD-{STEPS} gained came in its last quarter."


@_check(
    "no-success-is-thrown-away",
    "Does an attack that looks at its last image only miss successes on the way?",
    source="Pintor et al. 2022 (silent success)",
    threshold=0.05,
    serious=False,
    passed="Tools that keep only the last image see the same.",
    failed="Tools that keep only the last image overstate this model; the attacks here keep every success.",
    remedy="Compare only with tools that count every step's image.",
)
def silent_success(seen: Evidence) -> Seen:
    """Share of images that some step of PGD fooled and the last one did not."""
    share = _share((seen.path > 0).any(0) & (seen.path[-1] <= 0))
    return share, f"PGD-{STEPS} fooled the model on its way but not at its end on {in_percent(share)} of the images."


@_check(
    "robust-accuracy-falls-as-eps-grows",
    "Does robust accuracy fall as the ball grows?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist",
    threshold=0.03,
    serious=True,
    passed="It never rises, as it must be.",
    failed="A larger ball holds the smaller one, so an attack that finds less in it is failing.",
    remedy="Use more steps and restarts at every eps, and attacks that adapt their steps: `--attacks standard`.",
)
def falling(seen: Evidence) -> Seen:
    """The largest rise of robust accuracy from one eps to a larger one."""
    shares = [_share(robust) for robust in seen.ladder.values()]
    rise = max(later - earlier for i, earlier in enumerate(shares) for later in shares[i + 1 :])
    at = ", ".join(f"{100 * share:.1f}" for share in shares)
    return max(rise, 0.0), f"At eps times {', '.join(f'{m:g}' for m in seen.ladder)} PGD leaves {at} %."


@_check(
    "the-whole-space-is-not-robust",
    "Does the attack always succeed if it may change the image at will?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist; Pintor et al. 2022",
    threshold=0.05,
    serious=True,
    passed="The attack works.",
    failed="If anything is allowed nothing can be robust, so the attack is failing.",
    remedy="Find out why gradients don't lead to other classes before quoting any figure.",
)
def whole_space(seen: Evidence) -> Seen:
    """Robust accuracy under PGD where the ball is the whole range of pixels."""
    share = _share(seen.whole_space)
    return share, f"Allowed every image there is, PGD failed on {in_percent(share)} of the images."


@_check(
    "many-steps-beat-one",
    "Do many small steps find all that one large step finds?",
    source="Athalye et al. 2018, section 3.1",
    threshold=0.03,
    serious=True,
    passed="Following the gradient pays, as it should.",
    failed="Gradients nearby mislead the attack: the model hides its weakness instead of having none.",
    remedy="Add random starts and attacks that use no gradients: `--attacks adaptive`.",
)
def iterative(seen: Evidence) -> Seen:
    """Share of images that a single step fooled and many steps did not."""
    share = _share(seen.ladder[1.0] & seen.cross_entropy & ~seen.single_step)
    return share, f"One step fooled {in_percent(share)} of the images that PGD-{STEPS} did not."


@_check(
    "more-steps-change-little",
    "Would more steps and restarts find more?",
    source="Carlini et al. 2019, checklist (attacks have converged)",
    threshold=0.03,
    serious=True,
    passed="The figure has settled.",
    failed="The attacks had not found what there is to find; more of them would find still more.",
    remedy="Run stronger attacks: `--attacks standard`, more steps, more restarts.",
)
def converged(seen: Evidence) -> Seen:
    """Share of images that a longer PGD fooled, beyond all attacks of the evaluation."""
    baseline = seen.survivors if seen.found else seen.ladder[1.0]
    share = _share(baseline & ~seen.more_steps(50, 2))
    return share, f"PGD-50 with two new starts fooled {in_percent(share)} of the images beyond all other attacks."


@_check(
    "no-black-box-success",
    "Does an attack without gradients succeed where those with gradients failed?",
    source="Athalye et al. 2018, section 3.1; Carlini et al. 2019, checklist",
    threshold=0.02,
    serious=True,
    passed="Gradients show all that can be seen without them.",
    failed="Who knows less cannot find more, unless the gradients mislead.",
    remedy="Run all attacks that use no gradients: `--attacks adaptive`; find the operation that spoils gradients.",
)
def black_box(seen: Evidence) -> Seen:
    """Share of images that black-box attacks of the evaluation, or random points, fooled beyond all the others."""
    own = _share(seen.random_points(25))
    gained = seen.black_box_gain()
    share = own if gained is None else max(own, _share(gained))
    return share, f"Attacks without gradients fooled {in_percent(share)} of the images beyond all others."


@_check(
    "the-training-loss-agrees",
    "Does the attack on the training loss find what attacks on the logits find?",
    source="Carlini et al. 2019, checklist (adaptive attacks)",
    threshold=0.05,
    serious=False,
    passed="The two tell the same story.",
    failed="The training loss hides the way to images that fool the model: quote the worst case.",
    remedy="Quote the worst case over all attacks, not the one on the training loss.",
)
def training_loss(seen: Evidence) -> Seen:
    """Robust accuracy under attacks on the training loss, minus that under the others with gradients."""
    paper, logits = seen.group("paper"), seen.group("logits", "quick", "standard")
    if paper is None or logits is None:
        return None, "No attack on the training loss ran beside attacks on the logits."
    share = max(_share(paper) - _share(logits), 0.0)
    return share, f"The training loss left {in_percent(share)} of the images more than the logits did."


@_check(
    "cross-entropy-agrees-with-the-margin",
    "Do attacks on cross-entropy and on the margin agree?",
    source="Croce & Hein 2020, section 4; Carlini & Wagner 2017",
    threshold=0.05,
    serious=False,
    passed="Neither objective flatters the model.",
    failed="Cross-entropy flatters this model, as it does with scaled logits and hyperspherical heads.",
    remedy="Quote attacks on margins or ratios of logits.",
)
def objectives_agree(seen: Evidence) -> Seen:
    """Robust accuracy under PGD on cross-entropy, minus that under PGD on the margin."""
    share = max(_share(seen.cross_entropy) - _share(seen.ladder[1.0]), 0.0)
    return share, f"PGD-{STEPS} on cross-entropy left {in_percent(share)} of the images more than on the margin."
