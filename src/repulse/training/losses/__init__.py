"""The losses that come with the package; importing them enters them in `LOSSES`."""

from repulse.training.losses.alignment import Cosine, CrossEntropy, L2Squared, Linf
from repulse.training.losses.certified import CertifiedCrossEntropy, CertifiedHinge, MultiClassHinge
from repulse.training.losses.certified_linf import LinfHinge, LinfMargin
from repulse.training.losses.learned import PrototypeConformity, RepellingPrototypes

__all__ = [
    "CertifiedCrossEntropy",
    "CertifiedHinge",
    "Cosine",
    "CrossEntropy",
    "L2Squared",
    "Linf",
    "LinfHinge",
    "LinfMargin",
    "MultiClassHinge",
    "PrototypeConformity",
    "RepellingPrototypes",
]
