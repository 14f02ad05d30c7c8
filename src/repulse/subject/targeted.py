"""A subject that counts as fooled only where the model names one class: a stop sign read as a speed limit."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name
from repulse.models.foreign.adapt import adapt_model
from repulse.subject.subject import Subject

OTHERS = "any other class"


class Towards(nn.Module):
    """A model of two classes: whatever is not the target, by its largest logit; and the target.

    It names the target exactly where the model does, so an attack that fools it is a targeted attack on the model.

    Args:
        inner: maps images to logits (N, n), n at least 2.
        target: the class, from 0.
    """

    def __init__(self, inner: nn.Module, target: int) -> None:
        super().__init__()
        self.inner, self.target = inner, target
        self.training = inner.training

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N 2"]:
        """The largest of the other logits, and that of the target."""
        logits: Tensor = self.inner(x)
        if logits.ndim != 2 or not 0 <= self.target < logits.shape[1]:
            raise RepulseError(f"there is no class {self.target} among logits of shape {tuple(logits.shape)}")
        others = torch.cat((logits[:, : self.target], logits[:, self.target + 1 :]), 1).amax(1)
        return torch.stack((others, logits[:, self.target]), 1)


def towards(subject: Subject, target: int | str) -> Subject:
    """The same model and its images of other classes, where nothing but the target counts as fooled.

    Args:
        subject: the model and its images.
        target: a class, by its name or its number.

    Raises:
        RepulseError: if there is no such class, or there are images of no other.
    """
    names = subject.about.class_names
    text = str(target)
    if text in names:
        number = names.index(text)
    elif text.isdecimal() and (not names or int(text) < len(names)):
        number = int(text)
    else:
        raise unknown_name("class", text, names)
    kept = subject.labels != number
    if not bool(kept.any()):
        raise RepulseError(f"all images are of class {text}: give images of others, to be taken for it")
    called = names[number] if names else text
    about = replace(
        subject.about,
        description=f"{subject.about.description}; fooled where it names {called}".removeprefix("; "),
        class_names=(OTHERS, called),
    )
    return replace(
        subject,
        model=Towards(adapt_model(subject.model), number),
        images=subject.images[kept],
        labels=torch.zeros_like(subject.labels[kept]),
        about=about,
        # It is of embeddings and all classes.
        training_loss=None,
        prefix=f"{subject.prefix}towards-{'-'.join(called.split())}-",
    )
