"""Networks whose output lives in a space partitioned by class prototypes."""

from repulse.models import backbones as _registered  # noqa: F401
from repulse.models.backbone import BACKBONES, Backbone, make_backbone
from repulse.models.classifier import PrototypeClassifier
from repulse.models.readouts import READOUTS, Readout

__all__ = ["BACKBONES", "READOUTS", "Backbone", "PrototypeClassifier", "Readout", "make_backbone"]
