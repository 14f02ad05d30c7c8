"""What every attack shares: the checks before, and the distrust after."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks.decision import Decision, decide
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import objective_name
from repulse.attacks.passes import Counted, Passes
from repulse.attacks.per_image import UNIT, Framed, ThreatPerImage
from repulse.attacks.standing import Standing, shaped_logits
from repulse.attacks.threat import Threat, column
from repulse.common.arrays import Arrays, as_images, as_labels, as_tensor
from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode
from repulse.common.functions import as_module
from repulse.common.notice import notice
from repulse.common.registry import Registry

Model = nn.Module | Callable[[Tensor], Tensor]
"""Maps a batch of images to logits (N, n)."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class AttackResult(Counted):
    """What an attack found; every image is inside the ball and the range of pixels, whatever the attack returned."""

    adversarial: Float[Tensor, "N *shape"]
    fooled: Bool[Tensor, "N"]
    """Where the model, in evaluation mode, does not give the adversarial image its true class (see `decide`)."""
    prediction: Int64[Tensor, "N"]
    """The class that it gives."""
    passes: Passes
    tied: Bool[Tensor, "N"]
    """Where a wrong class is ahead by rounding only, which does not count as fooled."""
    broken: Bool[Tensor, "N"]
    """Where the model's logits for the adversarial image are not numbers, which counts as fooled."""


class Attack(ABC):
    """A search for adversarial images. Subclasses are frozen dataclasses of their settings, and write `search`."""

    black_box: ClassVar[bool] = False
    """Whether it works without gradients of the model."""
    own_slopes: ClassVar[bool] = False
    """Whether it makes gradients of its own where the model has none, if it can."""
    minimum_norm: ClassVar[bool] = False
    """Whether it looks for the smallest perturbation, whatever eps is; see `MinimumNorm`."""

    @property
    def climbs(self) -> str:
        """The name of the one objective whose gradient it climbs; "" if it has none."""
        objective = getattr(self, "objective", None)
        return "" if objective is None or self.black_box else objective_name(objective)

    @abstractmethod
    def search(self, standing: Standing) -> None:
        """Ask `standing` about images near the clean ones, until all have fallen or the budget is spent."""

    def __call__(
        self,
        model: Model,
        x: Arrays,
        y: Arrays,
        threat: Threat | ThreatPerImage,
        *,
        seed: int = 0,
        ids: Int64[Tensor, "N"] | None = None,
    ) -> AttackResult:
        """Attack a batch, then bring what was found into the ball and ask the model again.

        It may be called under `torch.no_grad()` or in inference mode. Images in half precision are searched for, and
        returned, in single precision; the model gets its own.

        Args:
            model: maps images to logits (N, n); attacked in evaluation mode, and left in the mode it was in.
            x: clean images (N, ...), pixels in the threat's range: a tensor, an array or a list; whole numbers are grey
                levels to 255 where the range is [0, 1].
            y: true classes (N,): whole numbers of any kind, or one-hot rows.
            threat: what is allowed: to all alike, or to every image its own.
            seed: of random starts.
            ids: a number for each image; its outcome depends on the seed and this number, not on its neighbours.

        Raises:
            RepulseError: if images are not numbers or out of range, labels don't fit, or the logits of a clean image
                are not numbers.
        """
        ids = torch.arange(len(y)) if ids is None else ids
        if isinstance(threat, ThreatPerImage):
            return self._in_boxes(model, x, y, threat, seed, ids)
        with self._begun(model, x, y, threat, Noise(seed, ids), None) as standing:
            self.search(standing)
            fallen = standing.distance <= standing.enough
            adversarial = torch.where(column(fallen, standing.clean), standing.nearest, standing.shown)
            adversarial = threat.project(adversarial, standing.clean)
            found = self._asked_again(standing, adversarial)
        return AttackResult(adversarial, found.fooled, found.prediction, standing.passes, found.tied, found.broken)

    def _in_boxes(
        self, model: Model, x: Arrays, y: Arrays, threat: ThreatPerImage, seed: int, ids: Int64[Tensor, "N"]
    ) -> AttackResult:
        """The same where every image has a threat of its own."""
        module, images = as_module(model), as_tensor(x, "images").detach()
        # Whole numbers are years or dollars here, not grey levels.
        x = images if images.dtype in (torch.float32, torch.float64) else images.float()
        y = as_labels(y).to(x.device)
        if threat.norm == "l2":
            parts = [
                (rows, self(module, x[rows], y[rows], ball, seed=seed, ids=ids[rows.cpu()]))
                for ball, rows in threat.groups(x)
            ]
            adversarial, passes = x.clone(), Passes.none(x)
            for rows, part in parts:
                adversarial[rows] = part.adversarial
                passes.put(rows, part.passes)
        else:
            framed = Framed(module, *threat.box(x))
            inner = self(framed, framed.inside(x), y, UNIT, seed=seed, ids=ids)
            framed.rows = torch.arange(len(x), device=x.device)
            adversarial, passes = framed.outside(inner.adversarial), inner.passes
        with attackable(module), torch.no_grad():
            found = decide(shaped_logits(module(adversarial), y), y)
        return AttackResult(adversarial, found.fooled, found.prediction, passes, found.tied, found.broken)

    @contextmanager
    def _begun(
        self, model: Model, x: Arrays, y: Arrays, threat: Threat, noise: Noise, enough: float | None
    ) -> Iterator[Standing]:
        """All images standing, after the checks of everything that was handed in."""
        model, (x, y) = as_module(model), _as_tensors(x, y, threat)
        check_inputs(x, y, threat)
        with torch.inference_mode(False), torch.enable_grad(), attackable(model):
            # A copy of what was made in inference mode is an ordinary tensor.
            x, y = (part.clone() if part.is_inference() else part.detach() for part in (x, y))
            x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            # One image first: objectives index logits by label, and would fail in a way that says nothing.
            with torch.no_grad():
                checked_logits(model(x[:1]), y)
            yield Standing(model, x, y, threat, noise, enough)

    def _asked_again(self, standing: Standing, adversarial: Tensor) -> Decision:
        """What the model says about what was found; what is not a number is said aloud."""
        with torch.no_grad():
            standing.asking(torch.arange(len(adversarial), device=adversarial.device))
            found = decide(shaped_logits(standing.model(adversarial), standing.labels), standing.labels)
        for row in found.broken.nonzero().flatten().tolist():
            notice(
                f"{type(self).__name__}: the model's logits are not numbers on an adversarial image of image {row} of "
                f"the batch (class {int(standing.labels[row])}); it counts as fooled"
            )
        return found


ATTACKS: Registry[Callable[..., Attack]] = Registry("attack")


@contextmanager
def attackable(model: nn.Module) -> Iterator[None]:
    """Within this context a model can be measured safely, whoever wrote it.

    It is in evaluation mode, and its parameters ask for no gradients. What it is called with is a copy of its own, in
    the precision of its parameters, so that it may work in place; logits in half precision become single. Tensors that
    were made in inference mode are replaced by ordinary ones, which gradients can pass.
    """
    for module in model.modules():
        _thaw(module)
    # One by one: no TorchScript module lets itself be asked for no gradients as a whole.
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    kinds = {parameter.dtype for parameter in wanted if parameter.is_floating_point()}
    dtype = kinds.pop() if len(kinds) == 1 else None

    def own(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_own_copy(part, dtype) if isinstance(part, Tensor) else part for part in args)

    def single(_: nn.Module, args: tuple[Any, ...], logits: Any) -> Any:  # noqa: ARG001
        half = isinstance(logits, Tensor) and logits.dtype in (torch.float16, torch.bfloat16)
        return logits.float() if half else logits

    # Not through the model: TorchScript refuses to register hooks, and yet calls them.
    hooks = [nn.Module.register_forward_pre_hook(model, own), nn.Module.register_forward_hook(model, single)]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        with evaluation_mode(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, asks in wanted.items():
            parameter.requires_grad_(asks)


def ordinary_autograd(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that gradients exist in it, whatever mode PyTorch is in where it is called."""

    @functools.wraps(function)
    def within(*arguments: P.args, **keywords: P.kwargs) -> R:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*arguments, **keywords)

    return within


def _as_tensors(x: Arrays, y: Arrays, threat: Threat) -> tuple[Tensor, Tensor]:
    """Images and labels as people hold them, on the device of the images."""
    images = as_images(x) if (threat.low, threat.high) == (0.0, 1.0) else as_tensor(x, "images")
    return images, as_labels(y).to(images.device)


def _own_copy(images: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is not None and images.is_floating_point() and images.dtype != dtype:
        return images.to(dtype)
    return images.clone()


def _thaw(module: nn.Module) -> None:
    """Ordinary copies in place of tensors made in inference mode, which no backward pass may save."""
    if isinstance(module, torch.jit.ScriptModule):
        return
    for kept in (module._parameters, module._buffers, vars(module)):
        for name, value in list(kept.items()):
            if isinstance(value, Tensor) and value.is_inference():
                with torch.inference_mode(False):
                    copy = value.clone()
                kept[name] = nn.Parameter(copy, value.requires_grad) if name in module._parameters else copy  # type: ignore[assignment]


def checked_logits(logits: Tensor, y: Tensor) -> Tensor:
    """The logits, if they are a matrix of numbers and have a column for every label; -inf rules a class out.

    Raises:
        RepulseError: if not.
    """
    logits = shaped_logits(logits, y)
    if bool(logits.isnan().any() | (logits == torch.inf).any() | (logits == -torch.inf).all(1).any()):
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
