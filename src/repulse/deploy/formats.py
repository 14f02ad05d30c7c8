"""Write a classifier in a form that other programs take, and compare its answers before the file counts as done."""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors, writing
from repulse.common.fixed_weights import frozen
from repulse.common.registry import Registry
from repulse.common.settings import to_yaml
from repulse.deploy.classifier import Classifier
from repulse.run_folder import load_splits

TOLERANCE = 1e-4
"""How far exported logits may be from the original's, as a share of their spread: other kernels round otherwise."""

COMPARED = 64

Answers = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """How a file of one kind is written, and read again to be compared."""

    suffix: str
    write: Callable[[nn.Module, Tensor, Path, dict[str, str]], None]
    """`(model, images to trace with, path, what to tell of the model)`."""
    read: Callable[[Path, Classifier], Answers]
    """From the file to a function of images to logits."""


FORMATS: Registry[Format] = Registry("format")


@dataclass(frozen=True)
class Exported:
    """A file that answers as the original does."""

    path: Path
    compared: int
    """Images whose answers were compared."""
    difference: float
    """The largest difference of a logit, as a share of the spread of the original's."""


def export(
    classifier: Classifier, path: str | Path | None = None, kind: str = "onnx", *, images: Tensor | None = None
) -> Exported:
    """Write a classifier as a file that takes images (N, C, H, W) in [0, 1], N free, and gives logits (N, n).

    - `onnx`: opens in onnxruntime and others (extra `repulse[onnx]`); input `images`, output `logits`.
    - `torchscript`: `torch.jit.load`; needs no Python.
    - `pt2`: `torch.export.load`.
    - `safetensors`: the weights alone, with the configuration in the head.

    Class names and image shape are in the file, in whatever place its kind has for such notes.

    Args:
        classifier: what to write.
        path: of the file; None: the run's name with the kind's suffix.
        kind: a name in `FORMATS`.
        images: to compare answers on, in [0, 1]; None: test images of the run's data.

    Raises:
        RepulseError: if the format is unknown or its library is missing, the network cannot be written so, there are no
            images to compare on, or the answers differ; there is no file then.
    """
    form = FORMATS[kind]
    path = Path(f"{classifier.config.name}{form.suffix}" if path is None else path)
    x = (some_test_images(classifier) if images is None else images).float()[:COMPARED]
    if len(x) < 2:
        raise RepulseError(f"answers are compared on at least 2 images, got {len(x)}")
    model = frozen(classifier.model).cpu().requires_grad_(False)
    about = {
        "classes": json.dumps(list(classifier.classes.names)),
        "image_shape": json.dumps(list(classifier.classes.image_shape)),
        "config": to_yaml(classifier.public_config()),
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent) as place:
        unfinished = Path(place) / path.name
        try:
            with _quiet():
                form.write(model, x[:2], unfinished, about)
        except RepulseError:
            raise
        except Exception as error:  # Exporters raise whatever they like.
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RepulseError(f"this network cannot be written as {kind}: {said}") from error
        difference = _difference(model, form.read(unfinished, classifier), x, kind)
        unfinished.replace(path)
    return Exported(path, len(x), difference)


def some_test_images(classifier: Classifier, source: str | None = None) -> Tensor:
    """A few test images of a classifier's data, in [0, 1].

    Args:
        classifier: which was trained on them.
        source: where the data lies now; None: where the run found it.

    Raises:
        RepulseError: if they cannot be read.
    """
    config = classifier.config
    if source is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"source": source})})
    try:
        test = load_splits(config).test
    except RepulseError as error:
        raise RepulseError(f"answers need test images, which are not there ({error}); see --source") from error
    return test.fetch(torch.arange(min(len(test), COMPARED))).float() / 255


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what is of no use to somebody who only wants the file, and whose answers are compared."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@torch.no_grad()
def _difference(model: nn.Module, answers: Answers, x: Tensor, kind: str) -> float:
    """The largest difference over all images, asked together and one by one; an error if it is no rounding."""
    ours = model(x)
    try:
        theirs = answers(x), torch.cat([answers(each.unsqueeze(0)) for each in x[:4]])
    except Exception as error:  # As above.
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RepulseError(f"the {kind} file does not run: {said}") from error
    spread = float((ours.amax() - ours.amin()).clamp_min(1e-12))
    difference = max(float((found - ours[: len(found)]).abs().amax()) / spread for found in theirs)
    if not difference <= TOLERANCE:
        raise RepulseError(
            f"the {kind} file answers otherwise than the model: logits differ by {difference:.2g} of their spread, "
            f"expected at most {TOLERANCE:g}"
        )
    return difference


def _write_onnx(model: nn.Module, x: Tensor, path: Path, about: dict[str, str]) -> None:
    onnx = _imported("onnx")
    _imported("onnxscript")
    program = torch.onnx.export(
        model,
        (x,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    written = program.model_proto
    for key, value in about.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


def _read_onnx(path: Path, _: Classifier) -> Answers:
    session = _imported("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answers(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])

    return answers


def _write_torchscript(model: nn.Module, x: Tensor, path: Path, about: dict[str, str]) -> None:
    traced: Any = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files=about)


def _read_torchscript(path: Path, _: Classifier) -> Answers:
    loaded: Answers = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return loaded


def _write_pt2(model: nn.Module, x: Tensor, path: Path, about: dict[str, str]) -> None:
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, str(path), extra_files=about)


def _read_pt2(path: Path, _: Classifier) -> Answers:
    loaded: Answers = torch.export.load(str(path)).module()
    return loaded


def _write_safetensors(model: nn.Module, _: Tensor, path: Path, about: dict[str, str]) -> None:
    save_tensors(path, {name: value.contiguous() for name, value in model.state_dict().items()}, about)


def _read_safetensors(path: Path, classifier: Classifier) -> Answers:
    tensors, _ = load_tensors(path)
    empty = frozen(classifier.model).cpu()
    for value in empty.state_dict().values():
        value.zero_()
    empty.load_state_dict(tensors)
    return empty


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RepulseError(f"format onnx needs {name}: pip install 'repulse[onnx]'") from error


FORMATS.register("onnx")(Format(".onnx", _write_onnx, _read_onnx))
FORMATS.register("torchscript")(Format(".ts", _write_torchscript, _read_torchscript))
FORMATS.register("pt2")(Format(".pt2", _write_pt2, _read_pt2))
FORMATS.register("safetensors")(Format(".safetensors", _write_safetensors, _read_safetensors))
