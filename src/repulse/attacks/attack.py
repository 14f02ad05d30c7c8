"""What every attack shares: the checks before, and the distrust after."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks.noise import Noise
from repulse.attacks.passes import Passes
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack found; every image is inside the ball and the range of pixels, whatever the attack returned."""

    adversarial: Float[Tensor, "N *shape"]
    fooled: Bool[Tensor, "N"]
    """Where the model, in evaluation mode, does not give the adversarial image its true class."""
    prediction: Int64[Tensor, "N"]
    """The class that it gives."""
    passes: Passes
    """What the attack spent on each image; the check at the end is not counted."""

    @property
    def forward_passes(self) -> int:
        """Images sent forward by the attack, one by one."""
        return self.passes.total[0]

    @property
    def backward_passes(self) -> int:
        """Images sent backward by the attack, one by one."""
        return self.passes.total[1]


@dataclass(frozen=True, eq=False)
class Perturbed:
    """What an attack's own search returns: its best image for each, and what it cost."""

    images: Float[Tensor, "N *shape"]
    passes: Passes


class Attack(ABC):
    """A search for adversarial images. Subclasses write `search` and nothing else."""

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Perturbed:
        """Look for images near `x` that the model does not classify as `y`; called with frozen parameters."""

    def __call__(
        self,
        model: nn.Module,
        x: Float[Tensor, "N *shape"],
        y: Int64[Tensor, "N"],
        threat: Threat,
        *,
        seed: int = 0,
        ids: Int64[Tensor, "N"] | None = None,
    ) -> AttackResult:
        """Attack a batch, then bring what was found into the ball and ask the model again.

        Args:
            model: maps images to logits (N, n); attacked in evaluation mode, and left in the mode it was in.
            x: clean images, pixels in the threat's range.
            y: true classes.
            threat: what is allowed.
            seed: of random starts.
            ids: a number for each image; its outcome depends on the seed and this number, not on its neighbours.

        Raises:
            RepulseError: if images are not numbers or out of range, labels don't fit, or logits are not finite.
        """
        check_inputs(x, y, threat)
        ids = torch.arange(len(y)) if ids is None else ids
        with attackable(model):
            # One image first: objectives index logits by label, and would fail in a way that says nothing.
            with torch.inference_mode():
                checked_logits(model(x[:1]), y)
            found = self.search(model, x, y, threat, Noise(seed, ids))
            adversarial = threat.project(found.images.detach(), x)
            with torch.inference_mode():
                prediction = checked_logits(model(adversarial), y).argmax(1)
        # Left inference mode by a copy, so that callers may do what they like with it.
        prediction = prediction.clone()
        return AttackResult(adversarial, prediction != y, prediction, found.passes)


@contextmanager
def attackable(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in evaluation mode and its parameters ask for no gradients."""
    # One by one: no TorchScript module lets itself be asked for no gradients as a whole.
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        with evaluation_mode(model):
            yield
    finally:
        for parameter, asks in wanted.items():
            parameter.requires_grad_(asks)


def checked_logits(logits: Tensor, y: Tensor) -> Tensor:
    """The logits, if they are finite, a matrix, and have a column for every label.

    Raises:
        RepulseError: if not.
    """
    if logits.ndim != 2:
        raise RepulseError(f"the model must give logits of shape (N, classes), got {tuple(logits.shape)}")
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise RepulseError(f"the model gives {logits.shape[1]} classes, but there is a label {int(y.max())}")
    if not torch.isfinite(logits).all():
        raise RepulseError("the model's logits are not finite numbers; nothing can be measured with them")
    return logits


def check_inputs(x: Tensor, y: Tensor, threat: Threat) -> None:
    """Refuse images and labels that no attack can mean.

    Raises:
        RepulseError: if there are not as many labels as images, a label is negative, or a pixel is out of range.
    """
    if len(x) != len(y):
        raise RepulseError(f"{len(x)} images but {len(y)} labels")
    if len(y) and int(y.min()) < 0:
        raise RepulseError(f"labels must not be negative, got {int(y.min())}")
    if not torch.isfinite(x).all():
        raise RepulseError("an image holds a pixel that is not a finite number")
    if len(x) and (x.min() < threat.low - 1e-6 or x.max() > threat.high + 1e-6):
        raise RepulseError(
            f"pixels must lie in [{threat.low:g}, {threat.high:g}], got {float(x.min()):.4g} to {float(x.max()):.4g}; "
            "give images before normalisation, and put the normalisation into the model"
        )
