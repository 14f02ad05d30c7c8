"""A model card, written from what was measured."""

from __future__ import annotations

from pathlib import Path

from repulse.common.errors import RepulseError
from repulse.config.run import RunConfig
from repulse.evaluation.record import RECORD_FILE, Record
from repulse.models import PrototypeClassifier
from repulse.report.words import interval, percent, setting
from repulse.run_folder import Classes, read_test_accuracy
from repulse.subject.record import read_record

_HEAD = """---
library_name: repulse
pipeline_tag: image-classification
tags: [adversarial-robustness, class-prototypes]
---
"""


def model_card(folder: Path, model: PrototypeClassifier, config: RunConfig, classes: Classes) -> str:
    """The card of a run's model, as Markdown with the Hub's head.

    It says what the model was trained on, its natural and robust accuracy with intervals, what the verdict of each
    evaluation was, and how to use the model. What was not measured is said to be so.

    Args:
        folder: the run folder, whose `test.json` and evaluations are read.
        model: the classifier.
        config: that it was trained with.
        classes: of its training data.
    """
    n, d = model.prototypes.shape
    shape = "x".join(map(str, classes.image_shape))
    recipe = "clean images" if config.recipe.name == "standard" else f"the recipe `{config.recipe.name}`"
    parts = [
        f"{_HEAD}\n# {config.name}",
        f"A classifier of {n} classes on prototypes in {d} dimensions (`{config.prototypes.method}`), trained by "
        "repulse, which also measured how robust it is.",
        "## Training",
        f"- Data: {classes.data_name}, images of {shape} (channels, height, width).\n"
        f"- Network: `{config.model.backbone}`, {sum(p.numel() for p in model.parameters()):,} parameters; readout "
        f"`{config.model.readout}`.\n"
        f"- Trained for {config.fit.epochs} epochs on {recipe} with the loss `{config.loss.name}`.\n"
        f"- Classes: {', '.join(classes.names)}.",
        "## Accuracy",
        _natural(folder),
        *(_evaluation(record) for record in evaluations(folder)),
        "## Use",
        "```python\nfrom repulse import Classifier\n\n"
        'classifier = Classifier.load("hub:ORG/NAME")  # or the folder of these files\n'
        'print(classifier.predict("photograph.png", top_k=3))\n```',
        "The model takes images in [0, 1]; normalisation is inside. `repulse evaluate` measures it again.",
    ]
    return "\n\n".join(parts) + "\n"


def evaluations(folder: Path) -> list[Record]:
    """The records of a run's evaluations, as far as this version can read them, the largest first."""
    found = []
    for path in sorted(folder.glob(f"evaluations/*/{RECORD_FILE}")):
        try:
            found.append(read_record(Record, path, "record", "repulse evaluate"))
        except RepulseError:
            continue
    return sorted(found, key=lambda record: -record.data.count)


def _natural(folder: Path) -> str:
    try:
        share, count = read_test_accuracy(folder)
    except RepulseError:
        return "Natural accuracy was not measured."
    return f"- Natural: {percent(share)} of {count:,} test images (95 % interval {interval(share, count)})."


def _evaluation(record: Record) -> str:
    count, verdict = record.data.count, record.verdict
    share = record.worst_case_accuracy if verdict is None else verdict.quote
    lines = [
        f"- Robust, {setting(record)}: at most {percent(share)} (95 % interval {interval(share, count)}); natural "
        f"accuracy of the same images {percent(record.natural_accuracy)}."
    ]
    if verdict is not None:
        lines.append(f"  Verdict: **{verdict.word}**. {verdict.summary}")
    return "\n".join(lines)
