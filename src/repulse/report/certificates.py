"""Certificates as a report shows them: what is proved, what attacks leave, and the unknown between the two."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.certification.record import CertificateRecord
from repulse.common.units import in_255ths
from repulse.report.blocks import ABSENT, Block, Card, Cards, Cell, Facts, Pair, Section, Table, Text
from repulse.report.certificate_picture import certificate_picture
from repulse.report.certified import Certified
from repulse.report.collect import Measured
from repulse.report.group import numbered
from repulse.report.sections.provenance import facts, of, versions
from repulse.report.tables import share_cell
from repulse.report.words import NORMS, interval, percent, plain, wilson

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


def certificate_section(certificates: Sequence[Certified], evaluations: Sequence[Measured]) -> Section | None:
    """What is proved, with the evaluations of the same weights in the same norm beside it; None if nothing is."""
    if not certificates:
        return None
    blocks: list[Block] = [Text(_ABOUT, "note")]
    named = list(zip(certificates, labels(certificates), strict=True))
    cards = tuple(card(each, label, f"c{number}") for number, (each, label) in enumerate(named, 1))
    blocks += [Cards(cards)] if len(cards) <= _CARDS else []
    curves = [
        certificate_picture(each, _beside(each, evaluations), f"c{n}-curve") for n, each in enumerate(certificates, 1)
    ]
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
