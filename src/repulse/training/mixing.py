"""CutMix: images with a rectangle of another image of the batch, whose loss is shared between both labels."""

from __future__ import annotations

import torch
from torch import Tensor

from repulse.training.loss import Embeddings, Head, Labels, Values
from repulse.training.recipe import Images, Task


def cut_mixed(task: Task, x: Images, y: Labels, share: float) -> tuple[Images, Task]:
    """The images of a batch, mixed in a share of the batches, and the task with the loss of both labels.

    `w loss(z, y) + (1 - w) loss(z, y')`, with w the share of pixels that an image keeps (Yun et al. 2019, eq. 1). One
    rectangle and one pairing serve a batch: its area is uniform in [0, 1], before the image's border cuts it, its
    centre uniform in the image. With averaged weights it helps adversarial training on few images (Rebuffi et al.
    2021). Drawn from PyTorch's global generator.

    Args:
        task: model and loss.
        x: images.
        y: labels.
        share: of the batches that are mixed, in [0, 1].
    """
    height, width = x.shape[-2:]
    u = torch.rand(4, device=x.device)
    half = u[0].sqrt() / 2
    inside = _near(height, u[1], half, x).unsqueeze(1) & _near(width, u[2], half, x) & (u[3] < share)
    pairs = torch.randperm(len(x), device=x.device)
    kept = 1 - inside.float().mean()
    other, per_example = y[pairs], task.per_example

    def of_both(z: Embeddings, y: Labels, head: Head) -> Values:
        return kept * per_example(z, y, head) + (1 - kept) * per_example(z, other, head)

    return torch.where(inside, x[pairs], x), Task(task.model, of_both)


def _near(length: int, centre: Tensor, half: Tensor, like: Tensor) -> Tensor:
    """Which pixels of a side lie within half a rectangle of its centre, all as shares of the side."""
    places = (torch.arange(length, device=like.device) + 0.5) / length
    return (places - centre).abs() < half
