"""Attacks on any model that maps images to logits."""

from repulse.attacks.apgd import APGD, TargetedAPGD
from repulse.attacks.attack import Attack, AttackResult
from repulse.attacks.decision import HopSkipJump
from repulse.attacks.ensemble import Ensemble, Member, ensemble
from repulse.attacks.fab import FAB
from repulse.attacks.fmn import FMN
from repulse.attacks.objectives import OBJECTIVES, EmbeddingLoss, Objective, through_embedding
from repulse.attacks.passes import Passes
from repulse.attacks.pgd import PGD, fgsm
from repulse.attacks.prototype_objectives import nearest_wrong, rescaled_cross_entropy
from repulse.attacks.random_search import RandomSearch
from repulse.attacks.smallest import Smallest
from repulse.attacks.square import Square
from repulse.attacks.threat import Norm, Threat
from repulse.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "FAB",
    "FMN",
    "OBJECTIVES",
    "PGD",
    "Attack",
    "AttackResult",
    "EmbeddingLoss",
    "Ensemble",
    "HopSkipJump",
    "Member",
    "Norm",
    "Objective",
    "Passes",
    "RandomSearch",
    "Smallest",
    "Square",
    "TargetedAPGD",
    "Threat",
    "Transfer",
    "ensemble",
    "fgsm",
    "nearest_wrong",
    "rescaled_cross_entropy",
    "through_embedding",
]
