"""The files of a run folder: everything needed to repeat a training run, take it up again, or use its model.

| file | what |
|---|---|
| `config.yaml` | the resolved configuration |
| `environment.json` | versions, device, threads |
| `prototypes.safetensors` | the class prototypes, with how they were made; learned ones start there |
| `classes.json` | class names, image shape, normalisation, digest of the training data |
| `metrics.csv` | one row per epoch |
| `test.json` | natural accuracy of the trained model on all test images |
| `checkpoints/state.safetensors` | where training stands: weights, average, optimiser |
| `checkpoints/last.safetensors`, `best.safetensors` | weights to use: newest, and best in validation accuracy |
| `evaluations/NAME/`, `certificates/NAME/` | what was measured, and proved |
"""

from __future__ import annotations

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
PROTOTYPES_FILE = "prototypes.safetensors"
CLASSES_FILE = "classes.json"
METRICS_FILE = "metrics.csv"
TEST_FILE = "test.json"
STATE_FILE = "checkpoints/state.safetensors"
EVALUATIONS = "evaluations"
CERTIFICATES = "certificates"
