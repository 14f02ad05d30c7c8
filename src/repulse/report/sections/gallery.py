"""The gallery: images, what an attack added to them, and what the model then saw."""

from __future__ import annotations

import base64
import io

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.report.blocks import Gallery, Section, Text, Triple
from repulse.report.collect import Measured
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.words import plain

_NOTE = (
    "Each row of three: the image, the perturbation (magnified; middle grey is no change), the adversarial image. "
    "Beneath: what the model saw before and after. Every perturbation lies within the eps of the table."
)


@SECTIONS.register("gallery")
def section(entry: Entry) -> Section | None:
    """The images that a record keeps; None if it keeps none."""
    found = gallery(entry.measured)
    return None if found is None else Section("Fooled images", (found, Text(_NOTE, "note")))


def gallery(measured: Measured) -> Gallery | None:
    """The images that a record keeps; None if it keeps none, or what it keeps are no images (C, H, W).

    Perturbations are drawn around middle grey, magnified so that the largest of all is black or white.
    """
    kept = measured.outcomes
    if "gallery/index" not in kept or len(kept["gallery/index"]) == 0 or kept["gallery/clean"].ndim != 4:
        return None
    clean, adversarial = kept["gallery/clean"], kept["gallery/adversarial"]
    delta = adversarial - clean
    largest = float(delta.abs().max())
    magnified = 0.5 / largest if largest > 0 else 1.0
    names, labels = measured.record.data.class_names, kept["label"]
    items = []
    for i, place in enumerate(kept["gallery/index"].tolist()):
        before = int(kept["gallery/natural_prediction"][i])
        after = int(kept["gallery/adversarial_prediction"][i])
        items.append(
            Triple(
                index=place,
                clean=png(clean[i]),
                perturbation=png(0.5 + magnified * delta[i]),
                adversarial=png(adversarial[i]),
                true=plain(names[int(labels[place])]),
                before=plain(names[before]),
                after=plain(names[after]),
            )
        )
    return Gallery(tuple(items), magnified)


def png(image: Float[Tensor, "C H W"]) -> str:
    """A data URI of an image in [0, 1]: grey from one channel, colour from three; of any other number, the first."""
    from PIL import Image

    levels = image.clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = levels.permute(1, 2, 0).numpy() if len(levels) == 3 else levels[0].numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
