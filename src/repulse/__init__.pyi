"""The public names, each said once: type checkers read this file, and so does `__init__.py`."""

from .attacks import ATTACKS as ATTACKS
from .attacks import PGD as PGD
from .attacks import Threat as Threat
from .attacks import ensemble as ensemble
from .certification.certify import certify as certify
from .certification.settings import CertificationSettings as CertificationSettings
from .certifying import certify_run as certify_run
from .common.errors import RepulseError as RepulseError
from .config.run import RunConfig as RunConfig
from .data import load_data as load_data
from .evaluation import evaluate as evaluate
from .evaluation.settings import EvaluationSettings as EvaluationSettings
from .measuring import evaluate_run as evaluate_run
from .models import PrototypeClassifier as PrototypeClassifier
from .models.foreign import load_foreign as load_foreign
from .prototypes import Prototypes as Prototypes
from .prototypes import make_prototypes as make_prototypes
from .prototypes import measure as measure
from .report import write_report as write_report
from .runs import load_run as load_run
from .runs import train_run as train_run
from .version import __version__ as __version__
