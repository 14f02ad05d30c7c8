"""The recipes that come with the package, one family a file; importing them enters them in `RECIPES`."""

from repulse.training.recipes.adversarial import FGSMRS, TRADES, PGDTraining
from repulse.training.recipes.free import Free
from repulse.training.recipes.gradient_penalties import InputGradient, Jacobian
from repulse.training.recipes.local_linearity import CurvaturePenalty, MarginSlopePenalty, SlopePenalty
from repulse.training.recipes.plain import GaussianNoise, Standard
from repulse.training.recipes.single_step import NFGSM, EmbeddingTRADES, FastTRADES, MarginStep

__all__ = [
    "FGSMRS",
    "NFGSM",
    "TRADES",
    "CurvaturePenalty",
    "EmbeddingTRADES",
    "FastTRADES",
    "Free",
    "GaussianNoise",
    "InputGradient",
    "Jacobian",
    "MarginSlopePenalty",
    "MarginStep",
    "PGDTraining",
    "SlopePenalty",
    "Standard",
]
