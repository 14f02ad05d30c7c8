"""Networks whose output lives in a space partitioned by class prototypes."""

from repulse.models.backbones import BACKBONES, make_backbone
from repulse.models.classifier import PrototypeClassifier
from repulse.models.readouts import READOUTS, Readout

__all__ = ["BACKBONES", "READOUTS", "PrototypeClassifier", "Readout", "make_backbone"]
