"""The picture of a certificate: what is proved over the radius, and what attacks leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from repulse.attacks import Threat
from repulse.common.units import in_255ths
from repulse.report.blocks import Picture
from repulse.report.certified import Certified
from repulse.report.collect import Measured
from repulse.report.pooled import surviving
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, canvas
from repulse.report.words import NORMS, grey_levels, percent

# Points of a curve: more than a screen can tell apart.
_POINTS = 256


def certificate_picture(each: Certified, beside: Sequence[Measured], name: str) -> Picture:
    """Certified accuracy over the radius, with what attacks left, and evaluations of the same weights `beside` it."""
    record = each.record
    scale = grey_levels(record.norm, (point.radius for point in record.points))
    grid, certified = certified_curve(each)
    points = [(point.radius, point.attacked) for point in record.points if point.attacked is not None]
    caption = "Stepped: the share of images that is proved right within the radius."
    if points:
        caption += " Dashed: the share that attacks at the radius left; the truth lies in the shaded area between."
    for other in beside:
        caption += (
            f" Dotted: the share whose smallest perturbation found by `repulse evaluate` is larger, on "
            f"{'the same' if other.record.data.sha256 == record.data.sha256 else 'other'} "
            f"{other.record.data.count:,} images."
        )
    end = record.points[-1]
    described = (
        f"Certified accuracy: {percent(certified[0])} at 0, {percent(end.certified)} at {in_255ths(end.radius)}."
    )
    with canvas(name, described, caption) as drawn:
        axes = drawn.figure.subplots()
        unit = "in 1/255" if scale == 255 else "pixels in [0, 1]"
        axes.set(ylim=(-2, 102), ylabel="accuracy, %", xlabel=f"radius ({NORMS[record.norm]}), {unit}")
        x = [radius * scale for radius in grid]
        if points:
            high = _interpolated(grid, points)
            low = [min(a, b) for a, b in zip(certified, high, strict=True)]
            shown = [radius <= max(points)[0] for radius in grid]
            axes.fill_between(
                x, [100 * v for v in low], [100 * v for v in high], where=shown, color=FAINT, alpha=0.2, linewidth=0
            )
            across, up = [radius * scale for radius, _ in points], [100 * share for _, share in points]
            look: Any = {"color": SERIES[1], "marker": MARKERS[1], "linestyle": "--", "linewidth": 1.4}
            axes.plot(across, up, label="attacked", **look)
        for other in beside:
            threat = Threat(other.record.norm, other.record.eps)
            left = surviving(other.outcomes["smallest"], grid, threat)
            axes.plot(x, [100 * v for v in left], color=INK, linestyle=":", linewidth=1.6, label="evaluated")
        axes.plot(x, [100 * v for v in certified], color=SERIES[0], drawstyle="steps-post", label="certified")
        drawn.figure.legend(loc="outside lower center", ncols=3)
    return drawn.picture


def _interpolated(grid: Sequence[float], points: Sequence[tuple[float, float]]) -> list[float]:
    result = []
    for radius in grid:
        before = max((p for p in points if p[0] <= radius), default=points[0])
        after = min((p for p in points if p[0] >= radius), default=points[-1])
        share = 0.0 if after[0] == before[0] else (radius - before[0]) / (after[0] - before[0])
        result.append(before[1] + share * (after[1] - before[1]))
    return result


def certified_curve(each: Certified) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Radii and the share certified at each, in [0, 1], on a fine grid to the largest radius."""
    radius = each.outcomes["radius"]
    furthest = max(float(radius.max()) * 1.02, *(point.radius for point in each.record.points))
    grid = torch.linspace(0, furthest or 1.0, _POINTS, dtype=torch.float64)
    return tuple(grid.tolist()), tuple(_larger(radius, grid).tolist())


def _larger(radius: Float64[Tensor, "N"], grid: Float64[Tensor, "R"]) -> Float64[Tensor, "R"]:
    below = torch.searchsorted(radius.sort().values, grid, right=True).double()
    return (len(radius) - below) / len(radius)
