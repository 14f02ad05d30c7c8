"""What is measured of a cell beside its evaluation: the passes of training, the learned separation, transfer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks import OBJECTIVES, Threat
from repulse.attacks.ascent import ascend
from repulse.attacks.attack import attackable
from repulse.attacks.noise import Noise
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.data import ImageSource
from repulse.models import PrototypeClassifier
from repulse.subject.subject import device_of, image_ids
from repulse.training import fit, make_fabric, read_metrics

# Batches that are trained on to count passes: enough for a rate, and for recipes that change from batch to batch.
_COUNTED_BATCHES, _COUNTED_AT_ONCE = 2, 16
_CRAFTED_AT_ONCE, _SEEN_AT_ONCE = 100, 500


class Counter:
    """Images that went through a module, forward and backward, each counted every time."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Count within this context. A gradient of a gradient passes backward once more."""

        def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.forward += len(output)
            if output.requires_grad:
                output.register_hook(self._backward)  # type: ignore[no-untyped-call]

        handle = module.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()

    def _backward(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def count_passes(config: RunConfig, model: PrototypeClassifier, images: ImageSource) -> tuple[float, float]:
    """Forward and backward passes per image of an epoch, counted while a few batches are trained on.

    The loop is the one that trains runs, so recipes that use a batch several times are counted as they are. A penalty
    on a gradient counts two passes backward, of which the second is about twice as long.

    Args:
        config: of a run.
        model: a model of that run; it is trained, and so spoilt.
        images: to train on.
    """
    batch = min(config.fit.batch_size, _COUNTED_AT_ONCE, len(images))
    some = images.take(torch.arange(min(_COUNTED_BATCHES * batch, len(images))))
    changes = {"epochs": 1, "compile": False, "batch_size": batch, "precision": "32-true", "accelerator": "cpu"}
    settings = merge(config, {"fit": {**changes, "devices": "1", "nodes": 1}}, "count").fit
    counter = Counter()
    with counter.watch(model.backbone):
        fit(
            model,
            config.loss,
            some,
            None,
            settings,
            fabric=make_fabric(settings),
            recipe=config.recipe,
            augment=config.augment,
            seed=config.seed,
        )
    used = len(some) // batch * batch
    return counter.forward / used, counter.backward / used


def training_cost(folder: Path, config: RunConfig, model: PrototypeClassifier, images: ImageSource) -> dict[str, float]:
    """What a finished run cost: `seconds` and `epochs` from its metrics, passes per image of an epoch as counted.

    Args:
        folder: of the run.
        config: of the run.
        model: its model, which is spoilt.
        images: its training images.
    """
    metrics = read_metrics(folder)
    forward, backward = count_passes(config, model, images)
    return {
        "seconds": sum(row.seconds for row in metrics),
        "epochs": len(metrics),
        "images": round(sum(row.seconds * row.images_per_second for row in metrics) / max(len(metrics), 1)),
        "forward": forward,
        "backward": backward,
    }


def learned_separation(
    z: Float[Tensor, "N d"], labels: Int64[Tensor, "N"], prototypes: Float[Tensor, "n d"]
) -> dict[str, float | None]:
    """How far apart the classes lie in a learned embedding, and how tightly each lies together.

    With `m_k` the mean embedding of class k, and `m` the mean of these:

    - `angle`: the smallest angle between `m_k - m` and `m_l - m`, in degrees; `prototype_angle`: the same of the
      prototypes. Seen from the centre, as in the study of neural collapse (Papyan, Han & Donoho 2020), since a softmax
      does not feel what is added to all logits alike. `angle_at_origin` and `prototype_angle_at_origin` are seen from
      the origin instead, as a cosine readout sees them.
    - `spread`: the root mean square distance of embeddings to the mean of their class, over the mean distance between
      two class means. 0: every class is one point; about 1: classes lie in each other.

    None stands for what is not defined: an angle at a point of length 0.

    Args:
        z: embeddings.
        labels: true classes; each must have an image.
        prototypes: where the classes should lie.
    """
    # Learnt prototypes are parameters, and ask for gradients.
    z, prototypes = z.double(), prototypes.detach().double()
    means = torch.stack([z[labels == label].mean(0) for label in range(len(prototypes))])
    within = (z - means[labels]).square().sum(1).mean().sqrt()
    between = torch.pdist(means).mean()
    return {
        "angle": smallest_angle(means - means.mean(0)),
        "prototype_angle": smallest_angle(prototypes - prototypes.mean(0)),
        "angle_at_origin": smallest_angle(means),
        "prototype_angle_at_origin": smallest_angle(prototypes),
        "spread": float(within / between) if between > 0 else None,
    }


def smallest_angle(points: Float[Tensor, "n d"]) -> float | None:
    """The smallest angle between two of the points, seen from the origin, in degrees; None if one lies there."""
    length = points.norm(dim=1, keepdim=True)
    if not bool((length > 1e-12 * length.max().clamp_min(1e-300)).all()):
        return None
    unit = points / length
    cosines = (unit @ unit.T).fill_diagonal_(-1)
    return math.degrees(math.acos(float(cosines.max().clamp(-1, 1))))


def embeddings(model: PrototypeClassifier, images: ImageSource) -> Float[Tensor, "N d"]:
    """The embeddings of all images, on the CPU."""
    device = model.mean.device
    parts = torch.split(torch.arange(len(images)), _SEEN_AT_ONCE)
    with torch.inference_mode():
        whole = [model.embed(images.fetch(part).to(device).float() / 255).float().cpu() for part in parts]
    return torch.cat(whole).clone()


def craft(
    model: nn.Module,
    images: Float[Tensor, "N C H W"],
    labels: Int64[Tensor, "N"],
    threat: Threat,
    *,
    steps: int,
    seed: int = 0,
) -> Float[Tensor, "N C H W"]:
    """Images after PGD on the margin of a model, from random points of the ball, steps of a quarter of eps.

    All steps are taken even where the model is fooled on the way: images that barely fool one model seldom fool
    another. Images that the model misclassifies are moved too.

    Args:
        model: the source.
        images: clean images, in [0, 1].
        labels: true classes.
        threat: the ball.
        steps: gradient steps.
        seed: of the random points.
    """
    parts = []
    ids, device = image_ids(images), device_of(model, images)
    with attackable(model):
        for rows in torch.split(torch.arange(len(images)), _CRAFTED_AT_ONCE):
            x, y = images[rows].to(device), labels[rows].to(device)
            start = threat.random_point(x, Noise(seed, ids[rows]), "craft")

            def margin(images: Tensor, y: Tensor = y) -> Tensor:
                return OBJECTIVES["margin"](model, images, y)[0]

            parts.append(ascend(margin, start, x, threat, steps, threat.eps / 4).cpu())
    return torch.cat(parts)


def correct(model: nn.Module, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
    """Where a model's answer is the true class."""
    device = device_of(model, images)
    with attackable(model), torch.inference_mode():
        answers = [model(part.to(device)).argmax(1).cpu() for part in torch.split(images, _SEEN_AT_ONCE)]
    return torch.cat(answers).clone() == labels
