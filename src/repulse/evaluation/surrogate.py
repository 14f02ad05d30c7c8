"""A model trained to imitate another, for transfer attacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks import Threat
from repulse.attacks.attack import attackable, check_inputs, checked_logits
from repulse.attacks.noise import Noise
from repulse.common.errors import RepulseError
from repulse.common.seeding import derive_seed
from repulse.models.small_cnn import SmallCNN

# So many images go through the model at a time.
_ASKED_AT_ONCE = 250


def train_surrogate(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    threat: Threat,
    *,
    steps: int = 300,
    copies: int = 3,
    width: int = 16,
    batch: int = 64,
    seed: int = 0,
) -> nn.Module:
    """A small network that gives the images a model's classes (Papernot et al. 2017); it is asked for classes only.

    It learns from the images and from random points around them, all labelled by the model: a convolutional network
    for images (C, H, W) of at least 8x8 pixels, else a perceptron with one hidden layer. The result depends on the
    arguments alone, and PyTorch's own random numbers are left as they were.

    Args:
        model: maps images to logits (N, n); asked in evaluation mode, `copies + 1` times for each image.
        images: pixels in the threat's range.
        threat: random points come from its ball.
        steps: steps of Adam.
        copies: random points for each image.
        width: channels after the first convolution; a perceptron has 16 times as many hidden units.
        batch: images per step.
        seed: of initial weights, points and batches.

    Returns:
        A frozen model in evaluation mode, on the images' device.

    Raises:
        RepulseError: if there are no images, a count is too small, a pixel is out of range, or the model's logits are
            not finite.
    """
    if len(images) == 0:
        raise RepulseError("a surrogate learns from images, got none")
    # Batch norm needs two images.
    for name, count, least in (("steps", steps, 1), ("batch", batch, 2), ("width", width, 1), ("copies", copies, 0)):
        if count < least:
            raise RepulseError(f"{name} must be at least {least}, got {count}")
    check_inputs(images, torch.zeros(len(images), dtype=torch.int64), threat)
    noise = Noise(seed, torch.arange(len(images)))
    x = torch.cat((images, *(threat.random_point(images, noise, "surrogate", copy) for copy in range(copies))))
    y, classes = _ask(model, x)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(derive_seed(seed, "surrogate"))
        student = _student(images, classes, width).to(images.device).train()
        optimiser = torch.optim.Adam(student.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + 1)
        for _ in range(steps):
            rows = torch.randint(len(x), (batch,)).to(x.device)
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(student(x[rows].float()), y[rows]))
            optimiser.step()
            schedule.step()
    return student.eval().requires_grad_(False)


def _ask(model: nn.Module, x: Float[Tensor, "N *shape"]) -> tuple[Int64[Tensor, "N"], int]:
    """The model's classes, and how many it knows."""
    none = torch.zeros(0, dtype=torch.int64)
    with attackable(model), torch.no_grad():
        logits = torch.cat([checked_logits(model(part), none) for part in torch.split(x, _ASKED_AT_ONCE)])
        return logits.argmax(1), logits.shape[1]


class _Student(nn.Module):
    """Standardises by the images' mean and spread, then asks a network."""

    mean: Tensor
    std: Tensor

    def __init__(self, images: Float[Tensor, "N *shape"], network: nn.Module) -> None:
        super().__init__()
        self.network = network
        axes = (0, 2, 3) if images.ndim == 4 else (0,)
        std, mean = torch.std_mean(images.float(), axes, correction=0, keepdim=True)
        self.register_buffer("mean", mean)
        # A pixel that never changes is left as it is.
        self.register_buffer("std", torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        logits: Tensor = self.network((x.float() - self.mean) / self.std)
        return logits


def _student(images: Float[Tensor, "N *shape"], classes: int, width: int) -> nn.Module:
    if images.ndim == 4 and min(images.shape[2:]) >= 8:
        return _Student(images, SmallCNN(images.shape[1], classes, width))
    hidden = 16 * width
    pixels = images.shape[1:].numel()
    return _Student(
        images,
        nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )
