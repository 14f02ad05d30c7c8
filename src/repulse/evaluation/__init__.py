"""Say what holds: measure a model, and record it."""

from repulse.evaluation.protocol import Evaluation, evaluate, evaluate_subject
from repulse.evaluation.record import Record, load_evaluation, save_evaluation
from repulse.evaluation.settings import EvaluationSettings
from repulse.subject import About

__all__ = [
    "About",
    "Evaluation",
    "EvaluationSettings",
    "Record",
    "evaluate",
    "evaluate_subject",
    "load_evaluation",
    "save_evaluation",
]
