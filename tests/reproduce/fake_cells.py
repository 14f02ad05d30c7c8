"""Cells made up for tests: a grid whose files hold figures that are chosen, and none that is measured."""

import json

from repulse.common.files import write_atomically
from repulse.common.settings import to_yaml
from repulse.evaluation.record import AttackRecord, CurvePoint, DataRecord, ModelRecord, Record, VerdictRecord
from repulse.reproduce.grid import write_json

GREY = 1 / 255


def attack(name, group, robust, eps, **settings):
    cost = {"seconds": 1.0, "forward_passes": 10, "backward_passes": 10}
    return AttackRecord(
        settings=settings,
        name=name,
        label=name.upper(),
        group=group,
        norm="linf",
        eps=eps,
        robust_accuracy=robust,
        largest_perturbation=eps,
        **cost,
    )


def record(cell, *, paper=(0.5, 0.4), worst=0.3, verdict="measured", curve=None, seconds=10.0, attacked_natural=0.9):
    eps = cell.grid.measurement.eps
    default = {level: (max(0.9 - 0.05 * level, 0.1), max(0.9 - 0.08 * level, 0.0)) for level in (0, 2, 4, 8, 16)}
    points = default if curve is None else curve
    return Record(
        created="2026-01-02T03:04:05+00:00",
        model=ModelRecord(name=cell.method, parameters=1, weights_sha256=f"{cell.method}{cell.seed}"),
        data=DataRecord(
            name="d", split="test", count=cell.grid.images, image_shape=(1, 8, 8), class_names=("a", "b"), sha256="s"
        ),
        norm="linf",
        eps=eps,
        seed=0,
        natural_accuracy=attacked_natural,
        attacks=(
            attack("pgd-20-training-loss", "paper", paper[0], eps, steps=20),
            attack("pgd-100-training-loss", "paper", paper[1], eps, steps=100),
            attack("apgd-margin", "quick", worst, eps),
        ),
        worst_case_accuracy=worst,
        verdict=VerdictRecord(word=verdict, quote=worst, found_by="APGD-MARGIN", summary="Said."),
        curve=tuple(
            CurvePoint(eps=level * eps / 8, robust_accuracy={"training loss": loss, "worst case": all_of_them})
            for level, (loss, all_of_them) in points.items()
        ),
        confusion_natural=((1, 0), (0, 1)),
        confusion_attacked=((1, 0), (0, 1)),
        seconds=seconds,
        environment={"torch": "2.x", "command": "repulse reproduce"},
    )


def fake(
    cell,
    *,
    natural=0.8,
    seconds=10.0,
    passes=(1.0, 1.0),
    epochs=2,
    angle=60.0,
    prototype_angle=90.0,
    spread=0.3,
    processor="p",
    transfer=None,
    **of_record,
):
    """Write a cell as if it had been trained and measured."""
    folder = cell.folder
    write_atomically(folder / "config.yaml", to_yaml(cell.config))
    write_json(folder / "test.json", {"natural_accuracy": natural, "images": 100})
    write_json(folder / "environment.json", {"processor": processor, "threads": "1"})
    write_atomically(
        folder / "metrics.csv",
        "epoch,loss,train_accuracy,validation_accuracy,learning_rate,seconds,images_per_second\n"
        + "".join(f"{i + 1},1.0,0.5,,0.1,{seconds / epochs},100.0\n" for i in range(epochs)),
    )
    forward, backward = passes
    cost = {"seconds": seconds, "epochs": epochs, "images": 500, "forward": forward, "backward": backward}
    write_json(folder / "cost.json", cost)
    separation = {"angle": angle, "prototype_angle": prototype_angle, "spread": spread}
    write_json(folder / "embedding.json", separation)
    write_json(cell.evaluation / "asked.json", cell.asked)
    write_atomically(cell.evaluation / "record.json", record(cell, **of_record).model_dump_json())
    if transfer is not None:
        robust = {target: {"weights": f"{target}{cell.seed}", "share": share} for target, share in transfer.items()}
        of = {"norm": "linf", "eps": cell.grid.measurement.eps, "steps": 20, "seed": 0, "images": cell.grid.images}
        write_json(folder / "transfer.json", {"of": of, "robust": robust})


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))
