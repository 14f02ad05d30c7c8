"""After training: answer for images, prove answers, export, share."""

from repulse.deploy.classifier import Classifier
from repulse.deploy.formats import FORMATS, export
from repulse.deploy.predictions import Prediction

__all__ = ["FORMATS", "Classifier", "Prediction", "export"]
