"""Pictures of the embedding: where the network puts images, and where it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from repulse.report.blocks import Pair, Picture, Section
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.svg import CLASSES, INK, PAPER, canvas
from repulse.report.words import percent, plain

# t-SNE of fewer points shows its own artefacts rather than the data's shape.
_FEWEST_FOR_TSNE = 50
_MOST = 1000
_PERPLEXITY = 30.0
# Beyond these, names of classes cover each other.
_NAMED = 20


@SECTIONS.register("embedding")
def section(entry: Entry) -> Section | None:
    """PCA and t-SNE; None where there is no embedding to see, or the model is shown elsewhere."""
    kept = entry.measured.outcomes
    if entry.same_model is not None or "embedding" not in kept:
        return None
    labels = kept["label"][: len(kept["embedding"])]
    names = entry.record.data.class_names
    pictures = embedding_pictures(kept["embedding"], labels, kept.get("prototypes"), names, entry.anchor)
    return Section("Embedding", (Pair(pictures),)) if pictures else None


def embedding_pictures(
    embedding: Float[Tensor, "M d"],
    labels: Int[Tensor, "M"],
    prototypes: Float[Tensor, "n e"] | None,
    class_names: Sequence[str],
    anchor: str,
) -> tuple[Picture, ...]:
    """PCA and t-SNE of the directions of at most 1,000 embeddings, the prototypes marked.

    All points are scaled to unit length: prototypes and embeddings then stand in one picture whatever the readout.
    t-SNE (van der Maaten and Hinton 2008; perplexity 30, from PCA, seeded) is left out for fewer than 50 points. No
    picture is made of embeddings that are not finite or all the same.
    """
    points, labels = _directions(embedding[:_MOST]), labels[:_MOST]
    if not points.isfinite().all() or len(points) < 3 or bool((points - points[0]).abs().max() < 1e-6):
        return ()
    marks = torch.zeros(0, points.shape[1])
    # A network may read its embedding out otherwise than by distance to prototypes of the same dimension.
    if prototypes is not None and prototypes.shape[1] == points.shape[1]:
        marks = _directions(prototypes)
    present = _present(labels)
    marks, mark_labels = (marks[present], present) if len(marks) else (marks, [])
    flat, flat_marks, kept = _principal(points, marks)
    stars = " Stars mark the prototypes." if mark_labels else ""
    where = f"{len(points):,} images by their direction in the output space, coloured by true class.{stars}"
    pictures = [
        _scatter(
            flat,
            flat_marks,
            labels,
            mark_labels,
            class_names,
            f"{anchor}-pca",
            f"PCA: {where} The two axes hold {percent(kept)} of the variance.",
        )
    ]
    if len(points) >= _FEWEST_FOR_TSNE:
        flat, flat_marks = _neighbours(points, marks)
        caption = f"t-SNE: {where} Only who is near whom means something here, not distances or sizes."
        pictures.append(_scatter(flat, flat_marks, labels, mark_labels, class_names, f"{anchor}-tsne", caption))
    return tuple(pictures)


def _directions(points: Tensor) -> Tensor:
    return torch.nn.functional.normalize(points.float(), dim=1)


def _principal(points: Tensor, marks: Tensor) -> tuple[Tensor, Tensor, float]:
    """Points and marks along the two directions in which the points vary most, and the share of variance there."""
    centre = points.double().mean(0)
    _, scales, axes = torch.linalg.svd(points.double() - centre, full_matrices=False)
    # A sign for each axis, so that the picture does not depend on the library that found it.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    variance = scales.square()
    kept = float(variance[:2].sum() / variance.sum())
    pad = max(0, 2 - len(axes))
    flat, flat_marks = (
        torch.nn.functional.pad((each.double() - centre) @ axes[:2].T, (0, pad)) for each in (points, marks)
    )
    return flat, flat_marks, kept


def _neighbours(points: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    from sklearn.manifold import TSNE

    together = torch.cat([points, marks]).double().numpy()
    perplexity = min(_PERPLEXITY, (len(together) - 1) / 3)
    start, _, _ = _principal(torch.from_numpy(together), torch.zeros(0, points.shape[1]))
    start = start / start[:, 0].std() * 1e-4
    found = TSNE(init=start.numpy(), perplexity=perplexity, random_state=0, method="barnes_hut").fit_transform(together)
    flat = torch.from_numpy(found)
    return flat[: len(points)], flat[len(points) :]


def _scatter(
    flat: Tensor,
    flat_marks: Tensor,
    labels: Tensor,
    mark_labels: Sequence[int],
    class_names: Sequence[str],
    name: str,
    caption: str,
) -> Picture:
    with canvas(name, caption, caption, height=4.4) as drawn:
        axes: Any = drawn.figure.subplots()
        for label in _present(labels):
            mine = flat[labels == label]
            axes.scatter(mine[:, 0].tolist(), mine[:, 1].tolist(), s=7, color=_colour(label), alpha=0.7, linewidths=0)
        for label, (x, y) in zip(mark_labels, flat_marks.tolist(), strict=True):
            axes.scatter([x], [y], s=130, marker="*", color=_colour(label), edgecolors=INK, linewidths=0.8, zorder=4)
        if len(_present(labels)) <= _NAMED:
            places = dict(zip(mark_labels, flat_marks.tolist(), strict=True)) or {
                label: flat[labels == label].median(0).values.tolist() for label in _present(labels)
            }
            for label, place in places.items():
                text = axes.annotate(
                    plain(class_names[label], 12), place, (0, 8), textcoords="offset points", ha="center", zorder=5
                )
                text.set_bbox({"facecolor": PAPER, "alpha": 0.75, "pad": 0.8, "linewidth": 0})
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.spines[:].set_visible(True)
        axes.margins(0.08)
    return drawn.picture


def _present(labels: Tensor) -> list[int]:
    return sorted(set(labels.tolist()))


def _colour(label: int) -> str:
    return CLASSES[label % len(CLASSES)]
