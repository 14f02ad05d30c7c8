"""Robust classifiers from repulsive class prototypes, and an honest measure of robustness."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from repulse.common.errors import RepulseError
from repulse.version import __version__

if TYPE_CHECKING:
    from repulse.attacks import PGD, Threat
    from repulse.certification.certify import certify
    from repulse.certification.settings import CertificationSettings
    from repulse.certifying import certify_run
    from repulse.data import load_data
    from repulse.evaluation import evaluate
    from repulse.evaluation.settings import EvaluationSettings
    from repulse.measuring import evaluate_run
    from repulse.models import PrototypeClassifier
    from repulse.prototypes import Prototypes, make_prototypes, measure
    from repulse.report import write_report
    from repulse.runs import load_run, train_run

# PyTorch takes seconds to import, so each name is fetched when it is first asked for.
_HOMES = {
    "CertificationSettings": "repulse.certification.settings",
    "EvaluationSettings": "repulse.evaluation.settings",
    "PGD": "repulse.attacks",
    "PrototypeClassifier": "repulse.models",
    "Prototypes": "repulse.prototypes",
    "Threat": "repulse.attacks",
    "certify": "repulse.certification.certify",
    "certify_run": "repulse.certifying",
    "evaluate": "repulse.evaluation",
    "evaluate_run": "repulse.measuring",
    "load_data": "repulse.data",
    "load_run": "repulse.runs",
    "make_prototypes": "repulse.prototypes",
    "measure": "repulse.prototypes",
    "train_run": "repulse.runs",
    "write_report": "repulse.report",
}

__all__ = [
    "PGD",
    "CertificationSettings",
    "EvaluationSettings",
    "PrototypeClassifier",
    "Prototypes",
    "RepulseError",
    "Threat",
    "__version__",
    "certify",
    "certify_run",
    "evaluate",
    "evaluate_run",
    "load_data",
    "load_run",
    "make_prototypes",
    "measure",
    "train_run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'repulse' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
