"""Certificates as a report shows them: what is proved, what attacks leave, and the unknown between the two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from repulse.attacks import Threat
from repulse.certification.record import CertificateRecord
from repulse.common.units import in_255ths
from repulse.report.blocks import ABSENT, Block, Card, Cards, Cell, Facts, Pair, Picture, Section, Table, Text
from repulse.report.certified import Certified
from repulse.report.collect import Measured
from repulse.report.group import numbered
from repulse.report.pooled import surviving
from repulse.report.sections.provenance import facts, of, versions
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, canvas
from repulse.report.tables import share_cell
from repulse.report.words import NORMS, grey_levels, interval, percent, plain, wilson

METHODS = {"lipschitz": "Lipschitz bound", "linf-distance": "L-inf-distance network", "smoothing": "smoothing"}
"""What a table calls a method."""

_ABOUT = (
    "Certified accuracy is proved: no perturbation within the radius changes the answer, whoever looks for it. What "
    "attacks left is an upper bound. What lies between the two is unknown."
)

# By whether attacks left the certificates whole.
_NEXT = {
    None: "Attack the proofs themselves: `repulse certify RUN --attack`.",
    True: "Quote it with its radius: no attack there will ever be leaves less.",
    False: "Quote none of it: the network is not what the proof takes it for.",
}

# More cards than these are no answer at a glance.
_CARDS = 6

# Points of a curve: more than a screen can tell apart.
_POINTS = 256


def certificate_section(certificates: Sequence[Certified], evaluations: Sequence[Measured]) -> Section | None:
    """What is proved, with the evaluations of the same weights in the same norm beside it; None if nothing is."""
    if not certificates:
        return None
    blocks: list[Block] = [Text(_ABOUT, "note")]
    named = list(zip(certificates, labels(certificates), strict=True))
    cards = tuple(card(each, label, f"c{number}") for number, (each, label) in enumerate(named, 1))
    blocks += [Cards(cards)] if len(cards) <= _CARDS else []
    curves = [_curve(each, _beside(each, evaluations), f"c{n}-curve") for n, each in enumerate(certificates, 1)]
    alone = len(certificates) == 1
    blocks += [Pair((curves[0], table(certificates[0].record)))] if alone else overview(certificates)
    for number, ((each, label), curve) in enumerate(zip(named, curves, strict=True), 1):
        shown: list[Block] = [] if alone else [Pair((curve, table(each.record)))]
        layers = _layers(each.record)
        shown += [] if layers is None else [Section("Lipschitz constants", (layers,))]
        shown.append(Section("Provenance", (_facts(each),)))
        parts = (Text(finding(each.record)), *shown)
        blocks.append(Section(label, parts, f"c{number}", folded=True, about=plain(each.record.model.description, 90)))
    return Section("Certificates", tuple(blocks), "certificates")


def card(each: Certified, label: str, anchor: str) -> Card:
    """What is proved at the first radius, and whether attacks left it whole."""
    record = each.record
    point = next((point for point in record.points if point.radius > 0), record.points[0])
    low, high = wilson(point.certified, record.data.count)
    where = f"within {in_255ths(point.radius)}, {NORMS[record.norm]}"
    detail = (
        f"natural accuracy {percent(record.natural_accuracy)}; 95 %: {interval(point.certified, record.data.count)}"
    )
    return Card(
        title=label,
        link=anchor,
        label="certified accuracy",
        figure=percent(point.certified),
        phrase=f"proved right {where}",
        scale=(point.certified, low, high, record.natural_accuracy, 1 / max(len(record.data.class_names), 1)),
        detail=f"{detail}; {record.data.count:,} images, {plain(record.data.name)}",
        sure={None: "proved, not attacked", True: "proved, and attacked", False: "UNSOUND"}[record.sound],
        tone="bad" if record.sound is False else "good",
        why=(soundness(record),),
        steps=(_NEXT[record.sound],),
    )


def overview(certificates: Sequence[Certified]) -> tuple[Table, ...]:
    """Certified accuracy of several certificates side by side: a table for each norm and data set."""
    groups: dict[tuple[str, str, str], list[tuple[int, str, Certified]]] = {}
    for number, (each, label) in enumerate(zip(certificates, labels(certificates), strict=True), 1):
        data = each.record.data
        groups.setdefault((each.record.norm, data.name, data.split), []).append((number, label, each))
    tables = []
    for (norm, name, split), members in groups.items():
        radii = sorted({point.radius for _, _, each in members for point in each.record.points if point.radius > 0})
        head = (f"{NORMS[norm]}, {plain(name)}, {plain(split)}",)
        rows = []
        for number, label, each in members:
            record, count = each.record, each.record.data.count
            rows.append(
                (
                    Cell(label, note=record.model.description, link=f"c{number}"),
                    *(share_cell(each.accuracy(radius), count, strong=radius == radii[0]) for radius in radii),
                    share_cell(record.natural_accuracy, count),
                    Cell(_attacked_word(record), strong=record.sound is False),
                    Cell(METHODS[record.method]),
                    Cell(f"{record.data.count:,}", number=True),
                )
            )
        # What is proved comes first: a narrow screen shows the first columns only.
        proved = (f"proved, {in_255ths(radius)}" for radius in radii)
        tables.append(Table((*head, *proved, "natural", "attacked", "method", "images"), tuple(rows)))
    return tuple(tables)


def table(record: CertificateRecord) -> Table:
    """Certified and attacked accuracy at each radius, and the unknown between them."""
    attacked, count = record.soundness is not None, record.data.count
    rows = []
    for point in record.points:
        cells = [
            Cell(in_255ths(point.radius), value=point.radius, number=True),
            share_cell(point.certified, count, strong=True),
        ]
        if attacked:
            high = point.attacked
            cells.append(ABSENT if high is None else share_cell(high, count))
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
            f"Randomised smoothing with noise of standard deviation {how.sigma:g}, {how.n0:,} samples to choose and "
            f"{how.n:,} to estimate, wrong with probability at most {how.alpha:g} per image; on "
            f"{percent(how.abstained)} of the images it abstains. What is certified is the "
            "smoothed classifier, not the model itself."
        )
    elif record.lipschitz is not None:
        proof = (
            f"The Lipschitz constant in {NORMS[record.norm]} from pixels to embedding is at most "
            f"{record.lipschitz.constant:.6g}, verified layer by layer; {record.slack:.2g} is taken off every radius "
            "for rounding."
        )
    else:
        proof = ""
    first = next((point for point in record.points if point.radius > 0), None)
    said = ""
    if first is not None:
        within = f"{in_255ths(first.radius)} ({NORMS[record.norm]})"
        said = f"{percent(first.certified)} of the images are proved right within {within}."
    return " ".join(part for part in (said, proof, soundness(record), f"Counted on {count:,} images.") if part)


def soundness(record: CertificateRecord) -> str:
    """What the attacks on the certificates found."""
    found = record.soundness
    if found is None:
        return "The certificates were not attacked."
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
    """What the page calls each: its run or its model, and the method, with a number where that is not enough."""
    return numbered([f"{each.name}, {METHODS[each.record.method]}" for each in certificates])


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
            look = {"color": SERIES[1], "marker": MARKERS[1], "linestyle": "--", "linewidth": 1.4}
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


def _facts(each: Certified) -> Facts:
    record = each.record
    members = () if record.soundness is None else record.soundness.members
    return facts(
        {
            "command": record.environment.get("command", ""),
            "certified": record.created,
            "place": each.place,
            **of(record.model, record.data),
            "attacks": ", ".join(members),
            "seed": str(record.seed),
            "took": f"{record.seconds:,.1f} s",
            "versions": versions(record.environment),
        }
    )


def _attacked_word(record: CertificateRecord) -> str:
    return {None: "no", True: "none broken", False: "UNSOUND"}[record.sound]
