"""Evaluations made up for tests: outcomes first, and a record counted from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.common.files import load_tensors
from repulse.common.seeding import generator
from repulse.evaluation.record import (
    OUTCOMES_FILE,
    AttackRecord,
    CheckRecord,
    CurvePoint,
    DataRecord,
    ModelRecord,
    Record,
    VerdictRecord,
    save_evaluation,
)

NASTY = ("<script>alert(1)</script>", "tée \"x\" & 'y'", "$\\alpha$ 日本\x07", "a very long name " * 8)
# Share of images that each attack leaves, of those classified right.
LEAVES = {
    ("pgd-20-training-loss", "PGD-20, training loss", "paper"): 0.8,
    ("pgd-100-training-loss", "PGD-100, training loss", "paper"): 0.7,
    ("fgsm-cross-entropy", "FGSM, cross-entropy", "logits"): 0.9,
    ("pgd-20-margin", "PGD-20, margin", "logits"): 0.3,
    ("pgd-100-margin", "PGD-100, margin", "logits"): 0.2,
    ("pgd-20-training-loss-as-published", "PGD-20, training loss, as published", "paper-as-published"): 0.05,
}

# With what a verdict rests on; the published script stands in the middle, where it must not be counted.
JUDGED = {
    ("pgd-20-training-loss", "PGD-20, training loss", "paper"): 0.8,
    ("pgd-20-training-loss-as-published", "PGD-20, training loss, as published", "paper-as-published"): 0.05,
    ("pgd-20-margin", "PGD-20, margin", "logits"): 0.6,
    ("apgd-cross-entropy", "APGD, cross-entropy", "standard"): 0.7,
    ("square", "Square <b>", "standard"): 0.8,
    ("fmn", "FMN", "adaptive"): 0.7,
}
CHECKS = (
    CheckRecord(
        name="space",
        question="Does it reach <0> in the whole space?",
        passed=True,
        serious=True,
        measured=0.0,
        threshold=0.05,
        sentence="As it must & does.",
        source="Athalye et al. 2018, section 3.1",
    ),
    CheckRecord(
        name="gradients",
        question="Are gradients alive?",
        passed=None,
        serious=True,
        sentence="Could not be asked.",
        source="Carlini et al. 2019",
    ),
    CheckRecord(
        name="black-box",
        question="Does a black-box attack find more?",
        passed=False,
        serious=False,
        measured=3.0,
        threshold=0.0,
        unit="count",
        sentence="Square found <three> more.",
        source="Carlini et al. 2019, section 4.6",
    ),
    CheckRecord(
        name="saturation",
        question="Do logits fit float32?",
        passed=False,
        serious=True,
        measured=123.456,
        threshold=88.0,
        unit="value",
        sentence="They do not.",
        source="Carlini & Wagner 2017",
    ),
)


def judged(folder: Path, **settings: Any) -> Record:
    """Write an evaluation with a verdict, checks, smallest perturbations and slices, and return its record."""
    count, eps = settings.get("count", 80), settings.get("eps", 8 / 255)
    record = sample(folder, **({"leaves": JUDGED} | settings))
    tensors = load_tensors(folder / OUTCOMES_FILE)[0]
    rng = generator(settings.get("seed", 0), "judged")
    right, worst = tensors["label"] == tensors["natural_prediction"], tensors["robust/worst-case"].bool()
    # Fooled images within the ball, some of them on its very edge; robust ones beyond, some never.
    inside = eps * torch.rand(count, generator=rng).clamp(0.05, 0.8) / 0.8
    beyond = torch.where(torch.rand(count, generator=rng) < 0.3, torch.inf, eps * 1.5)
    axis = torch.linspace(-2 * eps, 2 * eps, 9)
    along, across = torch.meshgrid(axis, axis, indexing="xy")
    index = torch.tensor([int(right.nonzero()[0]), int(right.nonzero()[1])])
    tensors |= {
        "smallest": torch.where(right, torch.where(worst, beyond, inside), 0.0).float(),
        "slice/index": index.int(),
        "slice/eps": axis,
        "slice/margin": torch.stack([along - 0.3 * across - 0.6 * eps, across.abs() - 9 * eps]),
    }
    left, attacks = right.clone(), []
    for attack in record.attacks:
        # Those on the standard list are run on what all before left, as an ensemble does.
        attacked, added = int((left if attack.group == "standard" else right).sum()), None
        if attack.group != "paper-as-published":
            after = left & tensors[f"robust/{attack.name}"].bool()
            left, added = after, int((left & ~after).sum())
        attacks.append(attack.model_copy(update={"attacked": attacked, "added": added}))
    verdict = VerdictRecord(
        word="overstated",
        quote=record.worst_case_accuracy,
        found_by="Square <b>",
        claim=record.attack("pgd-20-training-loss").robust_accuracy,
        claim_by="PGD-20, training loss",
        summary="The paper's protocol says <more> than holds.",
        reasons=("Square <b> found more.", "Logits saturate & hide."),
        next_steps=("Run `--attacks adaptive`.",),
    )
    judgement = {"verdict": verdict, "checks": CHECKS, "attacks": tuple(attacks)}
    record = record.model_copy(update=judgement | (settings.get("judgement") or {}))
    save_evaluation(folder, record, tensors)
    return record


def outcomes(count: int, classes: int, leaves: Mapping[Any, float], seed: int, extras: bool) -> dict[str, Tensor]:
    rng = generator(seed, "sample")
    label = torch.arange(count) % classes
    right = torch.rand(count, generator=rng) < 0.9
    natural = torch.where(right, label, (label + 1) % classes)
    found = {"label": label.int(), "natural_prediction": natural.int()}
    worst = right.clone()
    for (name, _, group), share in leaves.items():
        robust = right & (torch.rand(count, generator=rng) < share)
        found[f"robust/{name}"] = robust.to(torch.uint8)
        found[f"prediction/{name}"] = torch.where(robust | ~right, natural, (label + 2) % classes).int()
        if group != "paper-as-published":
            worst &= robust
    found["robust/worst-case"] = worst.to(torch.uint8)
    if extras:
        prototypes = torch.randn(classes, 6, generator=rng)
        noise = 0.3 * torch.randn(min(count, 60), 6, generator=rng)
        index = (right & ~worst).nonzero().flatten()[:3]
        clean = torch.rand(len(index), 1, 8, 8, generator=rng) * 0.8
        found |= {
            "prototypes": prototypes,
            "embedding": (prototypes[label[:60]] + noise).half(),
            "gallery/index": index.int(),
            "gallery/clean": clean,
            "gallery/adversarial": clean + 0.1 * torch.rand(clean.shape, generator=rng),
            "gallery/natural_prediction": natural[index].int(),
            "gallery/adversarial_prediction": ((label[index] + 2) % classes).int(),
        }
    return found


def sample(
    folder: Path,
    *,
    model: str = "paper",
    data: str = "digits",
    eps: float = 8 / 255,
    norm: Any = "linf",
    count: int = 80,
    class_names: Sequence[str] = NASTY,
    leaves: Mapping[Any, float] = LEAVES,
    seed: int = 0,
    extras: bool = True,
    judgement: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """Write an evaluation to a folder, and return its record."""
    classes = len(class_names)
    tensors = outcomes(count, classes, leaves, seed, extras)

    def share(name: str) -> float:
        return tensors[name].double().mean().item()

    natural = (tensors["label"] == tensors["natural_prediction"]).double().mean().item()
    robust = tensors["robust/worst-case"].bool()
    label, before = tensors["label"].long(), tensors["natural_prediction"].long()
    attacked = torch.where(robust | (before != label), before, (label + 2) % classes)
    record = Record(
        created="2026-01-02T03:04:05+00:00",
        model=ModelRecord(name=model, description="small <cnn>", parameters=1234, weights_sha256=f"{model}{seed}"),
        data=DataRecord(
            name=data,
            split="test",
            count=count,
            image_shape=(1, 8, 8),
            class_names=tuple(class_names),
            sha256=f"{data}{count:08d}",
        ),
        norm=norm,
        eps=eps,
        seed=0,
        natural_accuracy=natural,
        attacks=tuple(
            AttackRecord(
                name=name,
                label=text,
                group=group,
                norm=norm,
                eps=eps,
                settings={"steps": int(name.split("-")[1]), "step_size": eps / 4}
                if "pgd-" in name[:4]
                else {"steps": 1},
                robust_accuracy=share(f"robust/{name}"),
                seconds=1.5,
                forward_passes=1000,
                backward_passes=900,
                largest_perturbation=eps,
            )
            for name, text, group in leaves
        ),
        worst_case_accuracy=share("robust/worst-case"),
        curve_attack="PGD-20",
        curve=tuple(
            CurvePoint(eps=e, robust_accuracy={"training loss": 0.9 - 5 * e, "worst case": 0.9 - 8 * e})
            for e in (0.0, 8 / 255, 16 / 255)
        ),
        confusion_natural=_confusion(label, before, classes),
        confusion_attacked=_confusion(label, attacked, classes),
        seconds=12.0,
        environment={"torch": "2.x", "command": "repulse evaluate RUN --eps 8/255"},
    ).model_copy(update=changes)
    save_evaluation(folder, record, tensors)
    return record


def sample_run(folder: Path, **settings: Any) -> Record:
    """Write a run folder with one evaluation."""
    record = sample(folder / "evaluations" / "linf-8_255", **settings)
    (folder / "config.yaml").write_text("name: <paper>\n")
    (folder / "environment.json").write_text('{"torch": "2.x"}')
    (folder / "metrics.csv").write_text(
        "epoch,loss,train_accuracy,validation_accuracy,learning_rate,seconds,images_per_second\n"
        "1,2.0,0.4,,0.1,3.0,100\n2,1.0,0.6,0.55,0.05,1.0,200\n"
    )
    return record


def _confusion(label: Tensor, prediction: Tensor, classes: int) -> tuple[tuple[int, ...], ...]:
    table = torch.zeros(classes, classes, dtype=torch.int64)
    table.index_put_((label, prediction), torch.ones_like(label), accumulate=True)
    return tuple(tuple(row) for row in table.tolist())
