"""Attacks on any model that maps images to logits."""

from repulse.attacks.attack import Attack, AttackResult
from repulse.attacks.objectives import OBJECTIVES, EmbeddingLoss, Objective, through_embedding
from repulse.attacks.pgd import PGD, fgsm
from repulse.attacks.threat import Norm, Threat

__all__ = [
    "OBJECTIVES",
    "PGD",
    "Attack",
    "AttackResult",
    "EmbeddingLoss",
    "Norm",
    "Objective",
    "Threat",
    "fgsm",
    "through_embedding",
]
