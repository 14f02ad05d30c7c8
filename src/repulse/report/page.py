"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from repulse.report import tables
from repulse.report.certificates import overview, sections
from repulse.report.certified import Certified
from repulse.report.checks import checks, matrix, tally
from repulse.report.cost import cost, ladder
from repulse.report.curves import curve_of_many, curve_of_one
from repulse.report.embedding import embedding_pictures
from repulse.report.gallery import Gallery, gallery
from repulse.report.group import Entry, Group
from repulse.report.matrices import confusion, gram
from repulse.report.slices import slice_pictures
from repulse.report.svg import Picture
from repulse.report.tables import Table
from repulse.report.training_curves import training_pictures
from repulse.report.verdict import Card, card
from repulse.report.words import (
    finding,
    interval,
    percent,
    precision,
    strongest_paper_attack,
    threat,
)
from repulse.version import __version__


@dataclass(frozen=True)
class Headline:
    """A figure that a reader should see first."""

    what: str
    value: str
    interval: str
    detail: str


@dataclass(frozen=True)
class ModelPart:
    """What belongs to a model, whatever it was attacked with: prototypes, embedding, training."""

    gram: Picture | None
    separation: Table | None
    embeddings: tuple[Picture, ...]
    training: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """One evaluation on the page.

    Args:
        verdict: None if the record has none, or the page shows it in full at its top.
        checks_folded: whether a table of several models above sums the checks up.
        model: None if the section `same_model` above, of the same weights, has it.
    """

    entry: Entry
    verdict: Card | None
    headlines: tuple[Headline, ...]
    finding: str
    precision: str
    attacks: Table
    checks: Table | None
    checks_tally: str
    checks_folded: bool
    curve: Picture | None
    curve_table: Table | None
    ladder: Table | None
    slices: tuple[Picture, ...]
    confusions: tuple[Picture, ...]
    gallery: Gallery | None
    cost: Table
    model: ModelPart | None
    same_model: Entry
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Chapter:
    """One group on the page."""

    title: str
    anchor: str
    comparison: Table | None
    checks: Table | None
    curve: Picture | None
    findings: tuple[tuple[Entry, str], ...]
    precision: str
    sections: tuple[Section, ...]


def report_as_html(groups: Sequence[Group], title: str, certificates: Sequence[Certified] = ()) -> str:
    """The whole page. Everything that comes from records, names and files is escaped."""
    environment = Environment(
        loader=PackageLoader("repulse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Entry] = {}
    entries = [entry for group in groups for entry in group.entries]
    alone = len(entries) == 1
    chapters = [_chapter(group, f"g{number}", shown, alone=alone) for number, group in enumerate(groups, 1)]
    verdicts = [found for entry in entries if (found := card(entry)) is not None]
    proofs = sections(certificates, [entry.measured for entry in entries])
    page = environment.get_template("page.html")
    return (
        page.render(
            title=title,
            verdicts=verdicts,
            alone=alone,
            chapters=chapters,
            proofs=proofs,
            overviews=overview(certificates) if len(proofs) > 1 else (),
            version=__version__,
        )
        + "\n"
    )


def _chapter(group: Group, anchor: str, shown: dict[str, Entry], *, alone: bool) -> Chapter:
    many = len(group.entries) > 1
    return Chapter(
        title=group.title,
        anchor=anchor,
        comparison=tables.comparison(group.entries) if many else None,
        checks=matrix(group.entries) if many else None,
        curve=curve_of_many(group.entries, f"{anchor}-curves") if many else None,
        findings=tuple((entry, finding(entry.record)) for entry in group.entries) if many else (),
        precision=precision(group.entries[0].record),
        sections=tuple(_section(entry, shown, alone=alone, many=many) for entry in group.entries),
    )


def _section(entry: Entry, shown: dict[str, Entry], *, alone: bool, many: bool) -> Section:
    record, measured, anchor = entry.record, entry.measured, entry.anchor
    first = shown.setdefault(record.model.weights_sha256, entry)
    names = record.data.class_names
    return Section(
        entry=entry,
        verdict=None if alone else card(entry),
        headlines=_headlines(entry),
        finding=finding(record),
        precision=precision(record),
        attacks=tables.attacks(measured),
        checks=checks(record),
        checks_tally=tally(record),
        checks_folded=many,
        curve=curve_of_one(entry),
        curve_table=tables.curve(measured),
        ladder=ladder(measured),
        slices=slice_pictures(entry),
        confusions=(
            confusion(record.confusion_natural, names, f"{anchor}-natural", attacked=False),
            confusion(record.confusion_attacked, names, f"{anchor}-attacked", attacked=True),
        ),
        gallery=gallery(measured),
        cost=cost(measured),
        model=_model_part(entry) if first is entry else None,
        same_model=first,
        facts=_facts(entry),
        versions=_versions(entry),
    )


def _model_part(entry: Entry) -> ModelPart:
    measured, names = entry.measured, entry.record.data.class_names
    prototypes, embedding = measured.outcomes.get("prototypes"), measured.outcomes.get("embedding")
    separation, picture = measured.separation, None
    embeddings: tuple[Picture, ...] = ()
    if prototypes is not None and separation is not None:
        picture = gram(prototypes, separation, names, f"{entry.anchor}-gram")
    if embedding is not None:
        labels = measured.outcomes["label"][: len(embedding)]
        embeddings = embedding_pictures(embedding, labels, prototypes, names, entry.anchor)
    return ModelPart(
        gram=picture,
        separation=None if separation is None else tables.separation(separation),
        embeddings=embeddings,
        training=() if measured.metrics is None else training_pictures(measured.metrics, entry.anchor),
    )


def _headlines(entry: Entry) -> tuple[Headline, ...]:
    record = entry.record
    count = record.data.count

    def headline(what: str, share: float, detail: str) -> Headline:
        return Headline(what, percent(share), interval(share, count), detail)

    found = [headline("natural accuracy", record.natural_accuracy, "clean images")]
    paper = strongest_paper_attack(record)
    if paper is not None:
        found.append(headline("the paper's protocol", paper.robust_accuracy, paper.label))
    found.append(headline("worst case", record.worst_case_accuracy, "every counted attack withstood"))
    return tuple(found)


def _facts(entry: Entry) -> tuple[tuple[str, str], ...]:
    record = entry.record
    facts = {
        "command": record.environment.get("command", ""),
        "measured": record.created,
        "place": entry.measured.place,
        "model": f"{record.model.parameters:,} parameters, SHA-256 {record.model.weights_sha256}",
        "data": f"{record.data.name}, {record.data.split}, {record.data.count:,} images of shape "
        f"{tuple(record.data.image_shape)}, SHA-256 {record.data.sha256}",
        "threat": threat(record),
        "seed": str(record.seed),
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _versions(entry: Entry) -> tuple[tuple[str, str], ...]:
    found = [("measured with", {k: v for k, v in entry.record.environment.items() if k != "command"})]
    found.append(("trained with", entry.measured.environment or {}))
    return tuple((what, ", ".join(f"{k} {v}" for k, v in parts.items() if v)) for what, parts in found if parts)
