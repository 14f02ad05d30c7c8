"""What was measured: a record on disk before it is a table or a picture.

An evaluation is a folder with two files. `record.json` is a `Record`: settings, figures, provenance.
`outcomes.safetensors` holds what was seen for each image, so that any figure can be counted again:

| tensor | shape | meaning |
|---|---|---|
| `label` | (N,) int32 | true class |
| `natural_prediction` | (N,) int32 | predicted class of the clean image |
| `robust/NAME` | (N,) uint8 | 1 where attack NAME did not change a right answer into a wrong one |
| `prediction/NAME` | (N,) int32 | predicted class after attack NAME |
| `robust/worst-case` | (N,) uint8 | 1 where no attack of the record succeeded |
| `smallest` | (N,) float32 | smallest perturbation found that fools, in the norm; 0: misclassified; inf: none |
| `fooled_by` | (N,) int32 | first attack of the record that fooled it, from 0; -1: none; -2: misclassified |
| `queries` | (N,) int32 | forward and backward passes spent on it by the attacks of the record together |
| `seconds` | (N,) float32 | its part in the time of these attacks: in that of each batch by its part in the passes |
| `slice/index` | (K,) int32 | images of the loss surface slices |
| `slice/eps` | (S,) float32 | coordinates of the slices, in units of the norm |
| `slice/margin` | (K, S, S) float32 | margin (positive: fooled) along the attack and along a random sign direction |
| `gallery/index` | (K,) int32 | which images the gallery shows |
| `gallery/clean`, `gallery/adversarial` | (K, C, H, W) float32 | the images, in [0, 1] |
| `gallery/natural_prediction`, `gallery/adversarial_prediction` | (K,) int32 | their predicted classes |
| `embedding` | (M, d) float16 | embeddings of the first M images, if the model has them |
| `prototypes` | (n, d) float32 | class prototypes, if the model has them |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor

from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.subject.record import DataRecord, ModelRecord, RecordPart, read_record

RECORD_FILE = "record.json"
OUTCOMES_FILE = "outcomes.safetensors"

Group = Literal["paper", "paper-as-published", "logits", "quick", "standard", "adaptive", "chosen"]


class AttackRecord(RecordPart):
    """One attack with its settings, its outcome and its cost."""

    name: str = Field(description="Slug, unique in the record: 'pgd-20-training-loss'.")
    label: str = Field(description="What a table calls it: 'PGD-20, training loss'.")
    group: Group = Field(
        description="'paper': the paper's protocol; 'paper-as-published': its evaluation script; 'logits': PGD beside "
        "it; 'quick': the attacks of AutoAttack with small budgets; 'standard': with its own; 'adaptive': everything "
        "else that might find more; 'chosen': what was asked for by name."
    )
    objective: str = Field("", description="The one objective whose gradient it climbs: 'margin'; empty: none.")
    black_box: bool = Field(False, description="Whether it works without gradients of the model.")
    minimum_norm: bool = Field(False, description="Whether it looks for the smallest perturbation, whatever eps is.")
    norm: Literal["linf", "l2"]
    eps: float = Field(description="Radius of the ball, pixels in [0, 1].")
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    robust_accuracy: float = Field(description="Share of images still classified right, in [0, 1].")
    seconds: float
    forward_passes: int = Field(description="Images sent forward through the model, counted one by one.")
    backward_passes: int = Field(description="Images sent backward through the model, counted one by one.")
    largest_perturbation: float = Field(description="The largest distance of an adversarial image, in the norm.")
    attacked: int | None = Field(None, description="Images that it was run on: those that earlier attacks left.")
    added: int | None = Field(None, description="Images that it fooled and no attack before it had.")

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, values: Any) -> Any:
        """Records from before attacks said what they are tell it by their names only."""
        traits = {"objective", "black_box", "minimum_norm"}
        if not isinstance(values, Mapping) or traits & values.keys() or not isinstance(values.get("name"), str):
            return values
        name = values["name"]
        climbs = re.fullmatch(r"(?:fgsm|apgd|pgd-\d+)-(.+?)(?:-as-published)?", name)
        return {
            **values,
            "objective": climbs[1] if climbs else "",
            "black_box": name in ("square", "random-search", "transfer", "hop-skip-jump"),
            "minimum_norm": name in ("fmn", "fab-targeted"),
        }


class CheckRecord(RecordPart):
    """One check of whether a figure can be believed."""

    name: str = Field(description="Slug, unique in the record: 'more-steps-change-little'.")
    question: str = Field(description="What is asked, as a reader would ask it.")
    passed: bool | None = Field(description="None: it could not be asked of this model or these attacks.")
    serious: bool = Field(description="Whether failing it means that the robust accuracy cannot be trusted.")
    measured: float | None = None
    threshold: float | None = None
    unit: Literal["share", "value", "count"] = Field("share", description="A share is printed in per cent.")
    sentence: str = Field(description="What was seen and what it means, for somebody who is no expert.")
    source: str = Field(description="Paper and section.")
    remedy: str = Field("", description="What to do when it fails; empty: the sentence says so.")
    about: Literal["use", "attacks"] = Field("attacks", description="How the model is used, or whether attacks work.")


class VerdictRecord(RecordPart):
    """How robust, and how sure that is."""

    word: Literal["measured", "overstated", "upper-bound"] = Field(
        description="How sure: attacks converged and checks pass, or nothing is left; a claim is too high; or a better "
        "attack may leave less. Older records say 'believable' for 'measured', and 'not established'."
    )
    quote: float = Field(description="What no attack fooled, in [0, 1]: at most this much is robust.")
    robustness: str = Field("", description="How robust, in neutral words: 'some of the images stay right'.")
    caution: str = Field("", description="To be said before any figure, such as that images are few; may be empty.")
    found_by: str = Field(description="Label of the attack that fooled the most images of those behind the number.")
    claim: float | None = Field(None, description="The robust accuracy that was claimed, or the paper-style one.")
    claim_by: str = Field("", description="Where the claim comes from: 'claimed', or the label of an attack.")
    summary: str = Field(description="The verdict in one or two sentences.")
    reasons: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = Field((), description="What to run or mend next.")

    @field_validator("word", mode="before")
    @classmethod
    def _read_older_words(cls, word: object) -> object:
        return {"believable": "measured", "not established": "upper-bound"}.get(str(word), word)


class CurvePoint(RecordPart):
    """Robust accuracy at one eps, by objective: 'training loss', 'cross-entropy', 'margin', 'worst case'."""

    eps: float
    robust_accuracy: dict[str, float]


class Record(RecordPart):
    """Everything one evaluation measured."""

    schema_version: Literal[1] = 1
    created: str = Field(description="UTC, ISO 8601.")
    model: ModelRecord
    data: DataRecord
    norm: Literal["linf", "l2"]
    eps: float
    seed: int
    natural_accuracy: float
    attacks: tuple[AttackRecord, ...]
    worst_case_accuracy: float = Field(description="Share of images that no attack of the record fooled.")
    verdict: VerdictRecord | None = None
    checks: tuple[CheckRecord, ...] = ()
    expectation: int = Field(1, description="Draws that each answer of a random model is averaged over; 1: not random.")
    curve_attack: str = Field("", description="How the points of the curve were attacked, in words.")
    curve: tuple[CurvePoint, ...] = ()
    confusion_natural: tuple[tuple[int, ...], ...] = Field(description="Rows: true class; columns: predicted class.")
    confusion_attacked: tuple[tuple[int, ...], ...] = Field(description="The same under the worst case.")
    seconds: float
    environment: dict[str, str] = Field(description="Versions, device, threads, command.")

    def attack(self, name: str) -> AttackRecord:
        """The attack of that name; raises KeyError if the record has none."""
        for attack in self.attacks:
            if attack.name == name:
                return attack
        raise KeyError(name)


def save_evaluation(folder: Path, record: Record, outcomes: dict[str, Tensor]) -> None:
    """Write the two files of an evaluation; the record last, so that a record on disk is always complete."""
    save_tensors(folder / OUTCOMES_FILE, outcomes)
    write_atomically(folder / RECORD_FILE, record.model_dump_json(indent=1) + "\n")


def load_evaluation(folder: str | Path) -> tuple[Record, dict[str, Tensor]]:
    """Read an evaluation's record and its outcomes.

    Raises:
        RepulseError: if the folder holds no evaluation, or one that this version cannot read.
    """
    folder = Path(folder)
    record = read_record(Record, folder / RECORD_FILE, "record", "repulse evaluate")
    return record, load_tensors(folder / OUTCOMES_FILE)[0]
