"""A model and the images that it is measured on: what every evaluation and certification takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from pydantic import BaseModel
from torch import Tensor, nn

from repulse.attacks import EmbeddingLoss
from repulse.common.arrays import as_images, as_labels
from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.common.notice import notice
from repulse.models.foreign.adapt import original
from repulse.subject.identity import Identity, answers_of
from repulse.subject.journal import Journal, finished, other
from repulse.subject.record import DataRecord, ModelRecord
from repulse.version import __version__

Progress = Callable[[str, int, int], None]
"""`(stage, done, of)`: called after each batch."""


def silent(stage: str, done: int, of: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class About:
    """What tables and records call the model and the data."""

    model: str = "model"
    description: str = ""
    data: str = "data"
    split: str = "test"
    class_names: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, the images that it is measured on, and how to go about it.

    Opened from a run or from somebody else's model by `repulse.opening`, or made from Python objects as it stands.

    Args:
        model: maps images in [0, 1] to logits (N, n); on its own device.
        images: clean images, of any shape; kept on the CPU, since whole sets need not fit on the model's device.
        labels: true classes.
        about: names for tables and records.
        training_loss: what the model was trained to minimise, on embeddings, for models with `embed` and `classify`;
            None: cross-entropy on the logits.
        training_noise: standard deviation of the noise that it was trained with; None: it was not.
        foreign: whether it was trained elsewhere.
        caution: what users should know before they read any figure; may be empty.
        program: digest of the program text that makes the model, if it has one of its own.
        home: folder under which its results are kept; None: nowhere.
        prefix: of the names of these results, to tell them from those of other subjects.
        seed: of everything random in a measurement.
        batch_size: images at once.
        journal: keeps what is done.
        progress: called after each batch.
        folder: where the measurement at work is kept; None: in memory.
        finished: whether it is done there already.
    """

    model: nn.Module
    images: Float[Tensor, "N *shape"]
    labels: Int64[Tensor, "N"]
    about: About = About()
    training_loss: EmbeddingLoss | None = None
    training_noise: float | None = None
    foreign: bool = False
    caution: str = ""
    program: str = ""
    home: Path | None = None
    prefix: str = ""
    seed: int = 0
    batch_size: int = 100
    journal: Journal = field(default_factory=Journal)
    progress: Progress = silent
    folder: Path | None = None
    finished: bool = False

    def __post_init__(self) -> None:
        # Attacks work in float32, and in float64 for a model of it; models of half precision are given what they take.
        double = any(weight.dtype == torch.float64 for weight in self.model.parameters())
        images = as_images(self.images).cpu().to(torch.float64 if double else torch.float32)
        labels = as_labels(self.labels).cpu()
        with torch.inference_mode(False):
            # No gradient may pass what was made in inference mode; a copy is an ordinary tensor.
            object.__setattr__(self, "images", images.clone() if images.is_inference() else images)
            object.__setattr__(self, "labels", labels.clone() if labels.is_inference() else labels)

    def at_work(
        self,
        settings: BaseModel,
        *,
        seed: int,
        batch_size: int | None,
        output: Path | None,
        kind: str,
        name: str,
        more: str,
    ) -> Subject:
        """The same subject for one measurement, with a journal in a folder that goes on with the same one only.

        It is kept in `home/kind/name`, or where another measurement is kept there, beside it under a name that tells
        the two apart; the same measurement finds its own.

        Args:
            settings: of the measurement.
            seed: of everything random.
            batch_size: images at once; None: 100 on a CPU, where larger ones leave the cache, 500 on a GPU.
            output: a folder that was named for it; None: in the subject's home, if it has one, else in memory.
            kind: of measurement, the folder for all of them.
            name: what the folder is called.
            more: what is added to the name to tell it from another.

        Raises:
            RepulseError: if the folder that was named holds another measurement, done.
        """
        identity = self._identity(settings)
        folder = output
        if folder is not None and (changed := other(folder, identity, unfinished=False)):
            raise RepulseError(
                f"{folder} holds another measurement ({', '.join(changed)} differ), which is not overwritten: name "
                "another folder by --output"
            )
        if folder is None and self.home is not None:
            folder = self.home / kind / f"{self.prefix}{name}"
            if changed := other(folder, identity):
                beside = folder.with_name(f"{folder.name}-{more}-{identity.digest}")
                notice(f"{folder} holds another measurement ({', '.join(changed)} differ): this one goes to {beside}")
                folder = beside
        done = folder is not None and finished(folder, identity)
        return replace(
            self,
            seed=seed,
            batch_size=batch_size or (100 if self.device.type == "cpu" else 500),
            journal=Journal(None if folder is None or done else folder / "progress", identity),
            folder=folder,
            finished=done,
        )

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model, self.images)

    @cached_property
    def ids(self) -> Int64[Tensor, "N"]:
        """A number for each image, see `image_ids`."""
        return image_ids(self.images)

    @cached_property
    def model_record(self) -> ModelRecord:
        """Which model it is."""
        return model_record(self.model, self.about)

    @cached_property
    def data_record(self) -> DataRecord:
        """Which images these are."""
        return DataRecord(
            name=self.about.data,
            split=self.about.split,
            count=len(self.images),
            image_shape=tuple(self.images.shape[1:]),
            class_names=self.about.class_names,
            sha256=sha256_of(self.images, self.labels),
        )

    def _identity(self, settings: BaseModel) -> Identity:
        """Everything that decides the outcomes of a measurement."""
        # A model left in training mode is said to be.
        modes = bytes(getattr(module, "training", False) for module in self.model.modules())
        parts = {
            "the weights": self.model_record.weights_sha256,
            "the program": self.program,
            "the mode of the model": sha256_of(modes),
            "the images": self.data_record.sha256,
            "the number of classes": str(len(self.about.class_names)),
            "the settings": settings.model_dump_json(),
            "the version of repulse": __version__,
        }
        return Identity(parts, *answers_of(self.model, self.images, self.labels, self.device, self.training_loss))


def model_record(model: nn.Module, about: About) -> ModelRecord:
    """Which model it is: its names, its size, and a digest of all parameters and buffers."""
    state = original(model).state_dict().items()
    return ModelRecord(
        name=about.model,
        description=about.description,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        weights_sha256=sha256_of(*(part for name, value in state for part in (name.encode(), _content(value)))),
    )


def _content(value: object) -> bytes | Tensor:
    """What counts of an entry of a state dict: quantised layers keep more there than plain tensors."""
    if isinstance(value, Tensor):
        return value.dequantize() if value.is_quantized else value
    return repr(value).encode()


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where the model is: the device of its first parameter or buffer, or of the images if it has none."""
    return next(iter([*model.parameters(), *model.buffers()]), images).device


def image_ids(images: Float[Tensor, "N *shape"]) -> Int64[Tensor, "N"]:
    """A number for each image from its pixels alone, so that random starts don't depend on order or on neighbours."""
    return torch.tensor([int(sha256_of(image)[:15], 16) for image in images], dtype=torch.int64)
