"""Image classifiers of transformers as modules of pixels: their own processor's size, mean and std are inside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from repulse.common.errors import RepulseError, first_line, one_line

# What Pillow calls ways to resize, as transformers' processors name them.
_RESAMPLING = {2: "bilinear", 3: "bicubic"}


class ImageClassifier(nn.Module):
    """A classifier of transformers, from normalised images to logits; images of another size are brought to its own.

    Args:
        network: answers `pixel_values` with an object that holds `logits`.
        size: height and width that its processor makes; None: it takes any.
        mode: how to resize: 'bilinear' or 'bicubic'.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int] | None, mode: str = "bilinear") -> None:
        super().__init__()
        self.network, self.size, self.mode = network, size, mode

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N n"]:
        """The logits."""
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode=self.mode, antialias=True, align_corners=False)
        logits: Tensor = self.network(pixel_values=x).logits
        return logits


class Loaded(NamedTuple):
    """A classifier, and what its processor does to pixels in [0, 1] before."""

    model: ImageClassifier
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def from_transformers(name: str) -> Loaded:
    """The image classifier of a folder, or of the Hugging Face Hub by `ORG/NAME`; no code of its author is run.

    Raises:
        RepulseError: if transformers is not installed; there is no such model, or it classifies no images; or it is
            not in the cache and the Hub cannot be reached.
    """
    folder = Path(name).expanduser()
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(folder) if folder.is_dir() else name}
    if not name or (folder.is_dir() and not (folder / "config.json").is_file()):
        raise RepulseError(f"hf:{name}: a folder of transformers has a config.json, as save_pretrained writes it")
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~"))):
        raise RepulseError(f"hf:{name}: no such folder")
    try:
        from transformers import AutoModelForImageClassification
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise RepulseError(f"hf:{name} needs transformers: pip install 'repulse[hf]'") from error
    with _quiet():
        try:
            network = AutoModelForImageClassification.from_pretrained(**where)
        except Exception as error:
            raise _refused(name, error) from error
        try:
            processor, _ = ImageProcessingMixin.get_image_processor_dict(**where)
        except Exception:  # Not every model has one.
            processor = {}
    mean, std = _normalisation(processor)
    mode = _RESAMPLING.get(int(processor.get("resample") or 2), "bilinear")
    return Loaded(ImageClassifier(network, _size(processor, network), mode), mean, std)


def _refused(name: str, error: Exception) -> RepulseError:
    said = str(error)
    if isinstance(error, OSError) and ("connect" in said or "offline" in said or "cached files" in said):
        return RepulseError(
            f"hf:{name} is not in the cache, and the Hugging Face Hub cannot be reached; give a folder that "
            "save_pretrained wrote: hf:FOLDER"
        )
    if "Unrecognized configuration class" in said:
        return RepulseError(f"hf:{name} is no classifier of images that transformers knows")
    if isinstance(error, json.JSONDecodeError | OSError):
        return RepulseError(f"hf:{name} cannot be loaded: {first_line(error)}")
    return RepulseError(f"hf:{name} raised {one_line(error)}")


def _normalisation(processor: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation for pixels in [0, 1], whatever the processor first makes of 0 to 255."""
    if not processor:
        return None, None
    scale = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    has = processor.get("do_normalize", True)
    mean = processor.get("image_mean") if has else None
    std = processor.get("image_std") if has else None
    if mean is None and std is None and scale == 1:
        return None, None
    return _each(0.0 if mean is None else mean, scale), _each(1.0 if std is None else std, scale)


def _each(values: Any, scale: float) -> tuple[float, ...]:
    several = values if isinstance(values, list | tuple) else [values]
    return tuple(float(value) / scale for value in several)


def _size(processor: Mapping[str, Any], network: Any) -> tuple[int, int] | None:
    """Height and width of what the network gets to see; None if nothing says."""
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    found: Any = cropped or (processor.get("size") if processor.get("do_resize", True) else None)
    if found is None:
        found = getattr(network.config, "image_size", None)
    if isinstance(found, Mapping):
        shortest = found.get("shortest_edge")
        found = (found["height"], found["width"]) if "height" in found else (shortest, shortest)
    if isinstance(found, int):
        found = (found, found)
    if not found or None in found:
        return None
    height, width = found
    return int(height), int(width)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within this context transformers neither prints nor draws bars; what is wrong is said in one line."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
