"""What a check is: one question about a model, how its answer is measured, and how to read it.

A new check is one file with one registration line, and appears in every record and report:

    from repulse.evaluation.checks import Evidence, Finding, check

    @check("my-check", Evidence, question="Does it ...?", threshold=0.05, serious=True, source="A paper, section 3",
           passed="It does.", failed="It does not.", remedy="Run ...")
    def my_check(seen: Evidence) -> Finding:
        share = ...
        return Finding(share, f"It was seen on {share:.0%} of the images.")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from repulse.common.registry import Registry
from repulse.evaluation.record import CheckRecord

E = TypeVar("E")

OWN_SOURCE = "repulse: how the model is used"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Args:
        measured: the figure; None where the question cannot be asked.
        sentence: what was seen, in words.
        passed: whether that is as it should be; None: the check's limit on the figure decides.
        threshold: of the figure, where it depends on the model or the data; None: the check's own.
    """

    measured: float | None
    sentence: str
    passed: bool | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Check:
    """One question, and how to read its answer.

    Args:
        evidence: what `find` looks at: `Usage` (asked before any attack) or `Evidence` (asked after the attacks).
        find: measures the figure.
        question: as a reader would ask it.
        source: paper and section.
        serious: whether failing it means that the robust accuracy cannot be trusted; otherwise it is advice.
        threshold: of the measured figure; None where the finding brings its own.
        limit: whether the measured figure may be at most, or must be at least, the threshold.
        unit: of the figure; a share is printed in per cent.
        passed: what it means that the figure keeps to the threshold, added to the finding's sentence.
        failed: what it means that it does not, added likewise.
        remedy: what to do when it fails; "": the sentence says so.
    """

    evidence: type[Any]
    find: Callable[[Any], Finding]
    question: str
    source: str
    serious: bool
    threshold: float | None = None
    limit: Literal["at most", "at least"] = "at most"
    unit: Literal["share", "value", "count"] = "share"
    passed: str = ""
    failed: str = ""
    remedy: str = ""

    def answer(self, name: str, evidence: object) -> CheckRecord:
        """Ask it of what was seen."""
        return self.record(name, self.find(evidence))

    def record(self, name: str, found: Finding) -> CheckRecord:
        """A finding as it stands in a record."""
        threshold = self.threshold if found.threshold is None else found.threshold
        passed = found.passed
        if passed is None and found.measured is not None and threshold is not None:
            passed = found.measured <= threshold if self.limit == "at most" else found.measured >= threshold
        meaning = {True: self.passed, False: self.failed, None: ""}[passed]
        return CheckRecord(
            name=name,
            question=self.question,
            passed=passed,
            serious=self.serious,
            measured=found.measured,
            threshold=threshold,
            unit=self.unit,
            sentence=f"{found.sentence} {meaning}".rstrip(),
            source=self.source,
            remedy=self.remedy,
            about=self.evidence.about,
        )


CHECKS: Registry[Check] = Registry("check")


def check(name: str, evidence: type[E], **about: Any) -> Callable[[Callable[[E], Finding]], Callable[[E], Finding]]:
    """Register a function as the check of that name; `about` are the further arguments of `Check`."""

    def enter(find: Callable[[E], Finding]) -> Callable[[E], Finding]:
        CHECKS.register(name)(Check(evidence, find, **about))
        return find

    return enter


def checks_on(evidence: type[Any]) -> dict[str, Check]:
    """The registered checks that look at this kind of evidence, in the order in which they were registered."""
    return {name: each for name, each in CHECKS.items() if each.evidence is evidence}


def share_of(mask: Tensor) -> float:
    """The share of True in a mask; 0 for an empty one."""
    return mask.double().mean().item() if len(mask) else 0.0
