"""Checks of the verdict: how a model is used, and whether its gradients can be trusted.

Importing a family registers its checks; records list them in this order.
"""

# isort: off
from repulse.evaluation.checks.check import CHECKS, Check, Finding, check
from repulse.evaluation.checks.evidence import Evidence
from repulse.evaluation.checks.usage import Usage, check_use
from repulse.evaluation.checks.masking import examine

from repulse.evaluation.checks import outputs, scaling, labels, batches  # noqa: F401
from repulse.evaluation.checks import gradients, progress, budgets, agreement  # noqa: F401
# isort: on

__all__ = ["CHECKS", "Check", "Evidence", "Finding", "Usage", "check", "check_use", "examine"]
