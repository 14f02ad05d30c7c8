"""The methods of the comparison: each is a few changes to the defaults, none has code of its own here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from repulse.config.layers import (
    CODES,
    CONFORMITY,
    HYPERSPHERICAL,
    MAX_MAHALANOBIS,
    PAPER,
    REPELLING,
    SIMPLEX,
    SOFTMAX,
    SPHERE,
)

Family = Literal["no defence", "fixed prototypes", "learned prototypes", "adversarial training", "regulariser"]


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Args:
        family: what kind of defence it is.
        source: who proposed it.
        changes: what it changes of the defaults, in layers, each over the one before.
        passes: about how many forward and backward passes an image costs in an epoch, for estimates only.
    """

    family: Family
    source: str
    changes: tuple[dict[str, Any], ...]
    passes: float = 1.0

    @property
    def is_papers(self) -> bool:
        """Whether it is the paper's own."""
        return PAPER in self.changes


def _adversarial(recipe: str, source: str, passes: float) -> dict[str, Method]:
    """A recipe with a softmax layer, and the same with simplex prototypes in its place."""
    heads = {"": (SOFTMAX, source), "-simplex": (SIMPLEX, f"{source}; simplex prototypes")}
    return {
        recipe + suffix: Method("adversarial training", credit, (head, {"recipe": {"name": recipe}}), passes)
        for suffix, (head, credit) in heads.items()
    }


METHODS: dict[str, Method] = {
    "softmax": Method("no defence", "cross-entropy", (SOFTMAX,)),
    "label-smoothing": Method("no defence", "Szegedy et al. 2016", (SOFTMAX, {"loss": {"label_smoothing": 0.1}})),
    "paper-linf": Method("fixed prototypes", "Serban et al. 2021", (PAPER, {"loss": {"name": "linf"}})),
    "paper-cosine": Method("fixed prototypes", "Serban et al. 2021", (PAPER, {"loss": {"name": "cosine"}})),
    "paper-cosine-squared": Method(
        "fixed prototypes", "Serban et al. 2021", (PAPER, {"loss": {"name": "cosine-squared"}})
    ),
    "sphere": Method("fixed prototypes", "ours, half as many dimensions as classes", (SPHERE,)),
    "simplex": Method("fixed prototypes", "Kasarla et al. 2022", (SIMPLEX,)),
    "simplex-cosine": Method("fixed prototypes", "ours", (SIMPLEX, {"loss": {"name": "cosine"}})),
    "hpn": Method("fixed prototypes", "Mettes et al. 2019", (HYPERSPHERICAL,)),
    "mmc": Method("fixed prototypes", "Pang et al. 2020", (MAX_MAHALANOBIS,)),
    "ecoc": Method("fixed prototypes", "Verma & Swami 2019", (CODES,)),
    "pcl": Method("learned prototypes", "Mustafa et al. 2019", (CONFORMITY,)),
    "learned": Method("learned prototypes", "ours, the penalty of Mettes et al. 2019", (REPELLING,)),
    **_adversarial("fgsm-rs", "Wong et al. 2020", 2),
    **_adversarial("pgd", "Madry et al. 2018", 3),
    **_adversarial("trades", "Zhang et al. 2019", 4.5),
    **_adversarial("free", "Shafahi et al. 2019", 3),
    "noise": Method("regulariser", "Cohen et al. 2019", (SOFTMAX, {"recipe": {"name": "noise"}})),
    "input-gradient": Method(
        "regulariser", "Finlay & Oberman 2021", (SOFTMAX, {"recipe": {"name": "input-gradient"}}), 3
    ),
    "jacobian": Method("regulariser", "Hoffman et al. 2019", (SOFTMAX, {"recipe": {"name": "jacobian"}}), 3),
}
"""Every method by its name, in the order of the tables."""
