"""Certificates as a report shows them: what is proved, what attacks leave, and the unknown between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from repulse.attacks import Threat
from repulse.certification.record import CertificateRecord
from repulse.common.units import in_255ths
from repulse.report.certified import Certified
from repulse.report.collect import Measured
from repulse.report.smallest import surviving
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, Picture, canvas
from repulse.report.tables import ABSENT, Cell, Table
from repulse.report.words import interval, percent, plain

_NORMS = {"linf": "L-inf", "l2": "L2"}

METHODS = {"lipschitz": "Lipschitz bound", "linf-distance": "L-inf-distance network", "smoothing": "smoothing"}
"""What a table calls a method."""

# Points of a curve: more than a screen can tell apart.
_POINTS = 256


@dataclass(frozen=True)
class CertificateSection:
    """One certificate on the page."""

    anchor: str
    label: str
    description: str
    finding: str
    sound: bool | None
    curve: Picture
    table: Table
    layers: Table | None
    facts: tuple[tuple[str, str], ...]


def sections(certificates: Sequence[Certified], evaluations: Sequence[Measured]) -> tuple[CertificateSection, ...]:
    """Every certificate, with the evaluations of the same weights in the same norm beside it."""
    found = []
    for number, (each, label) in enumerate(zip(certificates, labels(certificates), strict=True), 1):
        record, anchor = each.record, f"c{number}"
        found.append(
            CertificateSection(
                anchor=anchor,
                label=label,
                description=plain(record.model.description),
                finding=finding(record),
                sound=record.sound,
                curve=_curve(each, _beside(each, evaluations), f"{anchor}-curve"),
                table=table(record),
                layers=_layers(record),
                facts=_facts(each),
            )
        )
    return tuple(found)


def overview(certificates: Sequence[Certified]) -> tuple[Table, ...]:
    """Certified accuracy of several certificates side by side: a table for each norm and data set."""
    groups: dict[tuple[str, str, str], list[tuple[int, str, Certified]]] = {}
    for number, (each, label) in enumerate(zip(certificates, labels(certificates), strict=True), 1):
        data = each.record.data
        groups.setdefault((each.record.norm, data.name, data.split), []).append((number, label, each))
    tables = []
    for (norm, name, split), members in groups.items():
        radii = sorted({point.radius for _, _, each in members for point in each.record.points if point.radius > 0})
        head = (f"{_NORMS[norm]}, {plain(name)}, {plain(split)}", "method", "images", "natural")
        rows = []
        for number, label, each in members:
            record = each.record
            rows.append(
                (
                    Cell(label, note=record.model.description, link=f"c{number}"),
                    Cell(METHODS[record.method]),
                    Cell(f"{record.data.count:,}", number=True),
                    _share(record.natural_accuracy, record),
                    *(_share(each.accuracy(radius), record) for radius in radii),
                    Cell(_attacked_word(record), strong=record.sound is False),
                )
            )
        tables.append(Table((*head, *(_radius(r) for r in radii), "attacked"), tuple(rows)))
    return tuple(tables)


def table(record: CertificateRecord) -> Table:
    """Certified and attacked accuracy at each radius, and the unknown between them."""
    attacked = record.soundness is not None
    rows = []
    for point in record.points:
        cells = [Cell(_radius(point.radius), number=True), _share(point.certified, record, strong=True)]
        if attacked:
            high = point.attacked
            cells.append(ABSENT if high is None else _share(high, record))
            cells.append(ABSENT if high is None else Cell(percent(max(high - point.certified, 0.0)), number=True))
        rows.append(tuple(cells))
    head = ("radius", "certified", *(("attacked", "unknown between") if attacked else ()))
    return Table(head, tuple(rows))


def finding(record: CertificateRecord) -> str:
    """What is proved, by what, and whether attacks left it whole, in a few sentences."""
    count = record.data.count
    if record.smoothing is not None:
        how = record.smoothing
        proof = (
            f"Randomised smoothing with noise of deviation {how.sigma:g}, {how.n0:,} draws to choose and {how.n:,} to "
            f"estimate, wrong with probability at most {how.alpha:g} per image; on {percent(how.abstained)} of the "
            "images it abstains. What is certified is the smoothed classifier, not the model itself."
        )
    elif record.lipschitz is not None:
        proof = (
            f"The Lipschitz constant in {_NORMS[record.norm]} from pixels to embedding is at most "
            f"{record.lipschitz.constant:.6g}, verified layer by layer; {record.slack:.2g} is taken off every radius "
            "for rounding."
        )
    else:
        proof = ""
    first = next((point for point in record.points if point.radius > 0), None)
    said = ""
    if first is not None:
        within = f"{_radius(first.radius)} ({_NORMS[record.norm]})"
        said = f"{percent(first.certified)} of the images are proved right within {within}."
    return " ".join(part for part in (said, proof, soundness(record), f"Counted on {count:,} images.") if part)


def soundness(record: CertificateRecord) -> str:
    """What the attacks on the certificates found."""
    found = record.soundness
    if found is None:
        return "The certificates were not attacked; --attack does it."
    if found.broken:
        named = ", ".join(map(str, found.broken[:5])) + (", …" if len(found.broken) > 5 else "")
        return (
            f"UNSOUND: attacks broke {len(found.broken)} of {found.images:,} certificates (images {named}). "
            "None of these figures is proved."
        )
    return (
        f"{len(found.members)} attacks on each of {found.images:,} certified images, inside its own radius, broke no "
        "certificate."
    )


def labels(certificates: Sequence[Certified]) -> list[str]:
    """What the page calls each: the model's name and the method, with a number where that is not enough."""
    names = [f"{plain(c.record.model.name) or 'model'}, {METHODS[c.record.method]}" for c in certificates]
    result = []
    for i, name in enumerate(names):
        earlier = names[:i].count(name)
        result.append(f"{name} #{earlier + 1}" if names.count(name) > 1 else name)
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


def _beside(each: Certified, evaluations: Sequence[Measured]) -> list[Measured]:
    """Evaluations of the same classifier in the same norm on the same data set, one for each set of images."""
    record = each.record
    found: dict[str, Measured] = {}
    for other in evaluations:
        seen = other.record
        if (
            record.smoothing is None
            and seen.model.weights_sha256 == record.model.weights_sha256
            and seen.norm == record.norm
            and (seen.data.name, seen.data.split) == (record.data.name, record.data.split)
            and "smallest" in other.outcomes
        ):
            found.setdefault(seen.data.sha256, other)
    return list(found.values())


def _curve(each: Certified, beside: Sequence[Measured], name: str) -> Picture:
    record = each.record
    scale = 255 if record.norm == "linf" else 1
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
    start, end = percent(certified[0]), percent(record.points[-1].certified)
    described = (
        f"Line chart of certified accuracy against the radius: {start} at radius 0, {end} at "
        f"{_radius(record.points[-1].radius)}."
    )
    with canvas(name, described, caption) as drawn:
        axes = drawn.figure.subplots()
        unit = "in 1/255" if scale == 255 else "pixels in [0, 1]"
        axes.set(ylim=(-2, 102), ylabel="accuracy, %", xlabel=f"radius ({_NORMS[record.norm]}), {unit}")
        x = [radius * scale for radius in grid]
        if points:
            high = _interpolated(grid, points)
            low = [min(a, b) for a, b in zip(certified, high, strict=True)]
            last = max(radius for radius, _ in points)
            shown = [radius <= last for radius in grid]
            axes.fill_between(
                x, [100 * v for v in low], [100 * v for v in high], where=shown, color=FAINT, alpha=0.2, linewidth=0
            )
            axes.plot(
                [radius * scale for radius, _ in points],
                [100 * share for _, share in points],
                color=SERIES[1],
                marker=MARKERS[1],
                linestyle="--",
                linewidth=1.4,
                label="attacked",
            )
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


def _layers(record: CertificateRecord) -> Table | None:
    if record.lipschitz is None or not record.lipschitz.layers:
        return None
    rows = tuple(
        (
            Cell(plain(layer.name) or "whole"),
            Cell(plain(layer.kind)),
            Cell(f"{layer.lower:.6f}", number=True),
            Cell(f"{layer.upper:.6f}", number=True),
        )
        for layer in record.lipschitz.layers
    )
    return Table(("layer", "kind", "found at least", "proved at most"), rows)


def _facts(each: Certified) -> tuple[tuple[str, str], ...]:
    record = each.record
    members = () if record.soundness is None else record.soundness.members
    facts = {
        "command": record.environment.get("command", ""),
        "certified": record.created,
        "place": each.place,
        "model": f"{record.model.parameters:,} parameters, SHA-256 {record.model.weights_sha256}",
        "data": f"{record.data.name}, {record.data.split}, {record.data.count:,} images of shape "
        f"{tuple(record.data.image_shape)}, SHA-256 {record.data.sha256}",
        "attacks": ", ".join(members),
        "seed": str(record.seed),
        "took": f"{record.seconds:,.1f} s",
        "versions": ", ".join(f"{k} {v}" for k, v in record.environment.items() if v and k != "command"),
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _attacked_word(record: CertificateRecord) -> str:
    return {None: "no", True: "none broken", False: "UNSOUND"}[record.sound]


def _radius(radius: float) -> str:
    return in_255ths(radius) if radius < 1 else f"{radius:.4g}"


def _share(share: float, record: CertificateRecord, *, strong: bool = False) -> Cell:
    note = f"95 % interval {interval(share, record.data.count)}"
    return Cell(percent(share), note=note, strong=strong, number=True)
