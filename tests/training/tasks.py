"""Tasks whose recipes have closed forms, and a backbone that says what went through it."""

import torch
from torch import nn

from repulse.common.settings import merge
from repulse.data import ImageSet
from repulse.models import PrototypeClassifier, make_backbone
from repulse.training import LOSSES, fit, make_fabric
from repulse.training.settings import FitSettings

CROSS_ENTROPY = LOSSES["cross-entropy"]().per_example


class Recorder(nn.Module):
    """A backbone that remembers which images went forward, in which mode, and how often a gradient came back."""

    def __init__(self, body):
        super().__init__()
        self.body, self.images, self.modes, self.backward = body, [], [], 0

    def forward(self, x):
        self.images.append(x.detach().clone())
        self.modes.append(self.training)
        z = self.body(x)
        z.register_hook(self._count)
        return z

    def _count(self, gradient):
        self.backward += 1


def linear(seed=0, weight=None):
    """Two classes of 4x4 images; the logits are W x, so every attack has a closed form."""
    torch.manual_seed(seed)
    body = nn.Linear(16, 2, bias=False)
    if weight is not None:
        body.weight.data = weight
    backbone = Recorder(nn.Sequential(nn.Flatten(), body))
    return PrototypeClassifier(backbone, torch.eye(2), "linear").train(), body.weight.detach()


def network(seed=0, readout="cosine"):
    torch.manual_seed(seed)
    return PrototypeClassifier(
        Recorder(make_backbone("small-cnn", channels=1, dimension=3, width=0.125)), torch.eye(3), readout
    )


def grey(count=6, low=0.3, high=0.7, side=4, classes=2):
    """Images far enough from black and white that a ball of 0.1 is not cut."""
    torch.manual_seed(1)
    return low + (high - low) * torch.rand(count, 1, side, side), torch.arange(count) % classes


def outwards(weight, y):
    """The direction in which the margin falls, (N, 1, 4, 4): the wrong class's weights minus the own one's."""
    return (weight[1 - y] - weight[y]).view(-1, 1, 4, 4)


def losses(margin):
    """Cross-entropy of two classes, given own logit minus the other."""
    return nn.functional.softplus(-margin)


def margins(x, y, weight):
    return -(outwards(weight, y) * x).flatten(1).sum(1)


def data(count=24, low=80, high=170):
    """Images of noise, two classes."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(low, high, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % 2, ("a", "b"), "noise", "train")


class Witness:
    """A watcher that keeps all it is told."""

    def __init__(self):
        self.steps, self.metrics, self.states = [], [], []

    def on_step(self, epoch, step, steps, images):
        self.steps.append((epoch, step, steps, images))

    def on_epoch(self, metrics, state, weights):
        self.metrics.append(metrics)
        self.states.append(type(state)(state.epoch, {name: value.clone() for name, value in state.tensors.items()}))


def train(recipe, images, changes=None, *, seed=0, model=None, **options):
    """The model, or a linear one, trained for two epochs, or as the changes say."""
    model = linear(seed=seed)[0] if model is None else model
    settings = merge(FitSettings(epochs=2, batch_size=8, accelerator="cpu", devices="1"), changes or {}, "test")
    fabric = make_fabric(settings)
    fabric.launch()
    fit(model, LOSSES["cross-entropy"](), images, None, settings, fabric=fabric, recipe=recipe, seed=5, **options)
    return model
