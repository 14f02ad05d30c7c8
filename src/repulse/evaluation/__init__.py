"""Say what holds: measure a model, and record it."""

from repulse.evaluation.protocol import About, Evaluation, evaluate
from repulse.evaluation.record import Record, load_evaluation, save_evaluation
from repulse.evaluation.settings import EvaluationSettings

__all__ = ["About", "Evaluation", "EvaluationSettings", "Record", "evaluate", "load_evaluation", "save_evaluation"]
