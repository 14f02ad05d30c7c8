"""Somebody else's model."""

from repulse.models.foreign.load import FORMS, load_foreign
from repulse.models.foreign.programs import Program
from repulse.models.foreign.wrappers import Bounded, Normalised

__all__ = ["FORMS", "Bounded", "Normalised", "Program", "load_foreign"]
