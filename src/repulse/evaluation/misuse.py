"""What the checks found about how a model is used: said before anything else, and if it is serious, the end of it."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.evaluation.record import CheckRecord
from repulse.subject import Subject


def refuse_misuse(checks: Sequence[CheckRecord], done: str) -> None:
    """Refuse to go on after a serious failure.

    Args:
        checks: of how the model is used.
        done: what would be done next, as a participle.

    Raises:
        RepulseError: if a serious check failed.
    """
    serious = [_words(check) for check in checks if check.serious and check.passed is False]
    if serious:
        raise RepulseError(
            f"the model is not used as it was meant to be, so nothing was {done} (--anyway goes on all the same). "
            f"{' '.join(serious)}"
        )


def report_misuse(subject: Subject, checks: Sequence[CheckRecord]) -> None:
    """Say what is wrong with how a model is used, and what else its subject has to be said of it."""
    for words in (_caution(subject, checks), *(_words(check) for check in checks if check.passed is False)):
        if words:
            notice(words)


def _caution(subject: Subject, checks: Sequence[CheckRecord]) -> str:
    """What its subject has to be said of a model whose weights nobody named, and what its accuracy says of them."""
    if not subject.caution:
        return ""
    knows = next((check.passed for check in checks if check.name == "better-than-chance"), None)
    if knows is None:
        return f"{subject.caution}, which are random unless it loads some; give --weights FILE if there are others"
    if knows:
        return f"{subject.caution}; they are right more often than a guess, so it seems to load trained ones itself"
    return f"{subject.caution}, and these are random: they are right no more often than a guess. Give --weights FILE"


def _words(check: CheckRecord) -> str:
    return f"{check.sentence} {check.remedy}".rstrip()
