"""Attacks on any model that maps images to logits."""

from repulse.attacks.apgd import APGD, TargetedAPGD
from repulse.attacks.attack import ATTACKS, Attack, AttackResult
from repulse.attacks.ensemble import ENSEMBLES, Ensemble, Member, ensemble, make_attack
from repulse.attacks.fab import FAB
from repulse.attacks.fmn import FMN
from repulse.attacks.hop_skip_jump import HopSkipJump
from repulse.attacks.minimum_norm import MinimumNorm, Smallest
from repulse.attacks.near_misses import NearMisses
from repulse.attacks.objectives import OBJECTIVES, EmbeddingLoss, Objective, through_embedding
from repulse.attacks.passes import Passes
from repulse.attacks.per_image import ThreatPerImage
from repulse.attacks.pgd import PGD, fgsm
from repulse.attacks.polish import Polish
from repulse.attacks.prototype_objectives import nearest_wrong, rescaled_cross_entropy
from repulse.attacks.random_search import RandomSearch
from repulse.attacks.square import Square
from repulse.attacks.standing import Answer, Standing
from repulse.attacks.threat import Norm, Threat
from repulse.attacks.through_masking import ThroughMasking
from repulse.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "ATTACKS",
    "ENSEMBLES",
    "FAB",
    "FMN",
    "OBJECTIVES",
    "PGD",
    "Answer",
    "Attack",
    "AttackResult",
    "EmbeddingLoss",
    "Ensemble",
    "HopSkipJump",
    "Member",
    "MinimumNorm",
    "NearMisses",
    "Norm",
    "Objective",
    "Passes",
    "Polish",
    "RandomSearch",
    "Smallest",
    "Square",
    "Standing",
    "TargetedAPGD",
    "Threat",
    "ThreatPerImage",
    "ThroughMasking",
    "Transfer",
    "ensemble",
    "fgsm",
    "make_attack",
    "nearest_wrong",
    "rescaled_cross_entropy",
    "through_embedding",
]
