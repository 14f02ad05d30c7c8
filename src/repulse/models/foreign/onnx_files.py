"""A model from an ONNX file: converted to PyTorch, so that gradients exist; else run by onnxruntime, without them."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError, one_line
from repulse.common.notice import notice

# Answers of a network twice, by two engines, differ by rounding only; of the spread of its answers.
ROUNDING = 1e-3

# Images that a converted file is asked about. Three: neither one image nor a file's fixed batch by chance.
_TRIED = 3

# The side of an image where the file leaves it free: small, and enough for networks that halve it five times.
_SIDE = 32

# The converter takes operators of detectors from it, and a PyTorch for processors cannot always load it.
_DETECTORS = ("torchvision", "torchvision.io", "torchvision.ops")


class OnnxModel(nn.Module):
    """An ONNX file as a module, from images (N, C, H, W) to logits.

    Args:
        answer: maps a batch as the file takes it to logits.
        digest: SHA-256 of the file, kept among the buffers.
        batch: how many images the file takes at once, exactly; None: any number.
        channels_last: whether the file takes (N, H, W, C).
        network: the converted network, if there is one.
    """

    file_sha256: Tensor

    def __init__(
        self,
        answer: Callable[[Tensor], Tensor],
        digest: bytes,
        *,
        batch: int | None = None,
        channels_last: bool = False,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.answer, self.batch, self.channels_last = answer, batch, channels_last
        self.network = network
        self.register_buffer("file_sha256", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the file."""
        given = x.movedim(1, -1) if self.channels_last else x
        if self.batch is None:
            return self.answer(given)
        parts = []
        for part in torch.split(given, self.batch):
            # What is missing from the last batch is filled up with its first image.
            filled = torch.cat((part, part[:1].expand(self.batch - len(part), *part.shape[1:])))
            parts.append(self.answer(filled)[: len(part)])
        return torch.cat(parts)


def load_onnx(path: Path) -> OnnxModel:
    """The model of an ONNX file, with gradients if it can be converted to PyTorch and then answers the same.

    Raises:
        RepulseError: if onnx and onnxruntime are missing, the file is damaged, or it is no classifier of images.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise RepulseError(f"{path} is an ONNX file, which needs: pip install 'repulse[onnx]'") from error
    digest = hashlib.sha256(path.read_bytes()).digest()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        program = onnx.load(str(path))
    except Exception as error:  # Whatever its engine raises.
        raise RepulseError(f"{path} cannot be loaded: {one_line(error)}") from error
    batch, shape = _input_shape(path, session)
    place = _logits_place(path, session)
    channels_last = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
    how: dict[str, Any] = {"batch": batch, "channels_last": channels_last}
    engine = OnnxModel(_engine(session, place), digest, **how)
    try:
        tried = torch.rand(_TRIED, *_as_given(shape, channels_last), generator=torch.Generator().manual_seed(0))
        network = _converted(program)
        answer = _first(network, place)
        for exact in (None, batch):
            model = OnnxModel(answer, digest, batch=exact, channels_last=channels_last, network=network)
            if exact == batch or _takes(model, tried):
                _compare(model, engine, tried)
                return model.requires_grad_(False)
        raise AssertionError("the file's own batch is tried last")
    except Exception as error:  # The converter raises what it likes; the file can be measured all the same.
        notice(
            f"{path} has no gradients here ({one_line(error)}): only attacks without gradients can be made, and its "
            "figures are upper bounds"
        )
        return engine


def _input_shape(path: Path, session: Any) -> tuple[int | None, tuple[int, ...]]:
    """The batch that a file takes, None if any; and the shape of one image, with a guess where it is free."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise RepulseError(f"{path} takes {len(inputs)} inputs; a classifier of images takes one")
    if inputs[0].type != "tensor(float)":
        raise RepulseError(f"{path} takes {inputs[0].type}, not images of float32; export it in single precision")
    first, *rest = inputs[0].shape
    guesses = (3, _SIDE, _SIDE) if len(rest) == 3 else (_SIDE,) * len(rest)
    shape = tuple(each if isinstance(each, int) else guess for each, guess in zip(rest, guesses, strict=True))
    return first if isinstance(first, int) else None, shape


def _as_given(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1]) if channels_last else shape


def _logits_place(path: Path, session: Any) -> int:
    """Which of the outputs are the logits: the one of that name, else the first matrix of numbers."""
    outputs = session.get_outputs()
    fit = [
        place
        for place, each in enumerate(outputs)
        if each.type in ("tensor(float)", "tensor(float16)", "tensor(double)") and len(each.shape) >= 2
    ]
    if not fit:
        said = ", ".join(f"{each.name}: {each.type}" for each in outputs)
        raise RepulseError(f"{path} gives no logits, a matrix (N, classes) of numbers, but {said}")
    return next((place for place in fit if "logits" in outputs[place].name.lower()), fit[0])


def _engine(session: Any, place: int) -> Callable[[Tensor], Tensor]:
    """Answers by onnxruntime."""
    taken, given = session.get_inputs()[0].name, session.get_outputs()[place].name

    def answer(x: Tensor) -> Tensor:
        try:
            (logits,) = session.run([given], {taken: x.detach().cpu().contiguous().numpy()})
        except Exception as error:
            raise RepulseError(
                f"the ONNX model does not take images of shape {tuple(x.shape)}: {one_line(error)}"
            ) from error
        return torch.from_numpy(logits).to(x.device, torch.float32)

    return answer


def _converted(program: Any) -> nn.Module:
    """The file as a PyTorch module.

    Raises:
        ImportError: if the converter is not installed.
        Exception: whatever the converter raises on operators that it does not know.
    """
    with _without_detectors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from onnx2pytorch import ConvertModel
        except ModuleNotFoundError as error:
            raise ImportError("onnx2pytorch is missing: pip install 'repulse[onnx]'") from error
        network: nn.Module = ConvertModel(program)
    return network.eval()


def _first(network: nn.Module, place: int) -> Callable[[Tensor], Tensor]:
    def answer(x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            # The converter warns about what it traces; nothing is traced here.
            warnings.simplefilter("ignore")
            given = network(x)
        found: Tensor = given[place] if isinstance(given, tuple | list) else given
        return found

    return answer


def _takes(model: nn.Module, images: Tensor) -> bool:
    """Whether a converted file takes another number of images than it was exported for, and keeps them apart."""
    try:
        with torch.no_grad():
            return len(model(images)) == len(images) and bool(
                torch.allclose(model(images)[:1], model(images[:1]), rtol=ROUNDING, atol=ROUNDING)
            )
    except Exception:
        return False


def _compare(model: nn.Module, engine: nn.Module, images: Tensor) -> None:
    """Refuse a conversion that answers otherwise than onnxruntime, or that no gradient passes."""
    asked = images.clone().requires_grad_()
    ours, theirs = model(asked), engine(images)
    spread = (theirs.amax() - theirs.amin()).clamp_min(1e-6)
    apart = float((ours.detach() - theirs).abs().amax() / spread)
    # Also where either is not a number.
    if not apart <= ROUNDING:
        raise ArithmeticError(f"its conversion to PyTorch answers otherwise than onnxruntime, by {apart:.2g}")
    if not ours.requires_grad or torch.autograd.grad(ours.sum(), asked, allow_unused=True)[0] is None:
        raise ArithmeticError("its conversion to PyTorch passes no gradient")


@contextlib.contextmanager
def _without_detectors() -> Iterator[None]:
    """Within this context importing torchvision succeeds, if need be by stand-ins that refuse to be called."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # A build for another PyTorch fails in its own ways.
        kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
        for name in kept:
            del sys.modules[name]
        try:
            sys.modules.update({name: _Absent(name) for name in _DETECTORS})
            yield
        finally:
            for name in _DETECTORS:
                sys.modules.pop(name, None)
    else:
        yield


class _Absent(types.ModuleType):
    """A module whose every name is a function that refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _refuse


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("this operator needs torchvision")
