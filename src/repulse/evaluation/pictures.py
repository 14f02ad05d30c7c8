"""What a record keeps for its pictures: some fooled images, and where images land in the output space."""

from __future__ import annotations

import torch
from torch import Tensor

from repulse.attacks.attack import attackable
from repulse.evaluation.attack_runner import AttackRunner, Outcome, foremost

# Enough for a picture of the embedding; more would make it slower, not clearer.
EMBEDDINGS = 1000


def gallery(runner: AttackRunner, worst: Outcome, count: int) -> dict[str, Tensor]:
    """Tensors of up to `count` fooled images: the first of each class in turn, then the second of each, and so on."""
    fooled = (runner.right & ~worst.robust).nonzero().flatten()
    index = fooled[foremost(runner.labels[fooled], count)[:count]]
    if not len(index):
        return {}
    return {
        "gallery/index": index.int(),
        "gallery/clean": runner.images[index].float(),
        "gallery/adversarial": worst.pictures(index, runner.images).float(),
        "gallery/natural_prediction": runner.natural[index].int(),
        "gallery/adversarial_prediction": worst.prediction[index].int(),
    }


def output_space(runner: AttackRunner) -> dict[str, Tensor]:
    """Embeddings of the first images, and the prototypes, for models that have `embed` and `prototypes`."""
    model = runner.model
    found: dict[str, Tensor] = {}
    if callable(embed := getattr(model, "embed", None)):
        with attackable(model), torch.no_grad():
            parts = torch.split(runner.images[:EMBEDDINGS], runner.batch_size)
            whole = torch.cat([embed(part.to(runner.device)).float().cpu() for part in parts])
        # Scaled to at most 1,000, since large embeddings would overflow half precision: a picture needs their shape.
        found["embedding"] = (whole / whole.abs().max().clamp_min(1e-12) * 1000).half()
    if isinstance(prototypes := getattr(model, "prototypes", None), Tensor):
        found["prototypes"] = prototypes.detach().float().cpu().clone()
    return found
