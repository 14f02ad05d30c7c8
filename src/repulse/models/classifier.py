"""A classifier whose output space is partitioned by class prototypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from repulse.common.errors import RepulseError
from repulse.models.readouts import READOUTS
from repulse.prototypes import Prototypes


class PrototypeClassifier(nn.Module):
    """Images in [0, 1] to logits, by way of an embedding that is compared with class prototypes.

    `logits = readout((backbone((x - mean) / std)), prototypes) / temperature`. It is an ordinary module: normalisation
    is inside, so any attack library, exporter or compiler takes it as it is. The softmax baseline is the same class
    with one-hot prototypes and the `linear` readout.

    >>> from repulse import make_prototypes
    >>> backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    >>> model = PrototypeClassifier(backbone, make_prototypes("simplex", 10, 16), "cosine", temperature=0.1)
    >>> model(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 10])

    Args:
        backbone: maps normalised images (N, C, H, W) to embeddings (N, d).
        prototypes: n points in d dimensions; kept as a buffer, not trained, unless `learn_prototypes` is set.
        readout: name in `READOUTS`: `linear`, `dot`, `cosine`, `l2`, `linf`, `code`, or one of your own.
        temperature: divides the readout; > 0.
        mean: per-channel mean of the images, in [0, 1]; one value serves all channels.
        std: per-channel standard deviation; > 0.
        mirror: in evaluation mode, average the embeddings of the image and of its mirror image. Both passes are part
            of the model, so attacks see through them; they double its cost.
        shift: in evaluation mode, average the embedding of the image (half of the weight) and those of the image moved
            by so many pixels to the upper left and to the lower right; the mean colour moves in. The speed record does
            this (Jordan 2024, section 3.6), with one pixel. It triples the cost.
        learn_prototypes: train the prototypes with the backbone, from where they are; they are then a parameter of the
            same name.

    Raises:
        RepulseError: if the readout is unknown, temperature or std is not positive, or shift is negative.
    """

    prototypes: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        prototypes: Prototypes | Float[Tensor, "n d"],
        readout: str = "cosine",
        *,
        temperature: float = 1.0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        mirror: bool = False,
        shift: int = 0,
        learn_prototypes: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise RepulseError(f"temperature must be positive, got {temperature}")
        if not all(value > 0 for value in std):
            raise RepulseError(f"std must be positive in every channel, got {list(std)}")
        if shift < 0:
            raise RepulseError(f"shift must not be negative, got {shift}")
        points = prototypes if isinstance(prototypes, Tensor) else prototypes.points
        self.backbone = backbone
        self.readout = readout
        self.temperature = float(temperature)
        self.mirror = mirror
        self.shift = shift
        self._readout = READOUTS[readout]()
        points = points.detach().clone().float()
        if learn_prototypes:
            self.register_parameter("prototypes", nn.Parameter(points))
        else:
            self.register_buffer("prototypes", points)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def embed(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """The embedding of images in [0, 1].

        Raises:
            RepulseError: if the backbone's output is not (N, d) for prototypes in d dimensions.
        """
        x = (x.to(self.mean.dtype) - self.mean) / self.std
        z: Tensor = self._near(x)
        if self.mirror and not self.training:
            z = (z + self._near(x.flip(-1))) / 2
        if z.ndim != 2 or z.shape[1] != self.prototypes.shape[1]:
            raise RepulseError(
                f"the backbone must give embeddings of shape (N, {self.prototypes.shape[1]}), the prototypes' "
                f"dimension; got {tuple(z.shape)}"
            )
        return z

    def _near(self, x: Tensor) -> Tensor:
        """The embedding of normalised images, with those of moved ones if there is a shift."""
        z: Tensor = self.backbone(x)
        if self.shift and not self.training:
            s, (height, width) = self.shift, x.shape[-2:]
            framed = pad(x, (s, s, s, s))
            moved = (framed[..., 2 * s :, 2 * s :], framed[..., :height, :width])
            z = (z + (self.backbone(moved[0]) + self.backbone(moved[1])) / 2) / 2
        return z

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""
        return self._readout.logits(z, self.prototypes.to(z.dtype)) / self.temperature

    def distances(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """What attacks on the geometry climb: the smallest belongs to the class, whatever the temperature."""
        return self._readout.distances(z, self.prototypes.to(z.dtype))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N n"]:
        """The logits of images in [0, 1]."""
        return self.classify(self.embed(x))

    def extra_repr(self) -> str:
        """Classes, dimension, readout, temperature, what is averaged, and whether prototypes are learned."""
        n, d = self.prototypes.shape
        shape = f"classes={n}, dimension={d}" + (", learned" if self.prototypes.requires_grad else "")
        averaged = f"mirror={self.mirror}, shift={self.shift}"
        return f"{shape}, readout={self.readout!r}, temperature={self.temperature:g}, {averaged}"
