"""The page of a report: the answers first, then a picture and a table; everything else is folded."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# Importing the room registers its sections.
import repulse.report.sections  # noqa: F401
from repulse.report.answers import card
from repulse.report.blocks import Block, Cards, Page, Section, Text
from repulse.report.certificates import certificate_section
from repulse.report.certified import Certified
from repulse.report.group import Entry, Group
from repulse.report.machine import figures
from repulse.report.section import SECTIONS
from repulse.report.sections.checks import matrix, tally
from repulse.report.sections.curve import curve_of_many
from repulse.report.tables import comparison, leaderboard
from repulse.report.words import plain, precision
from repulse.version import __version__

# More cards than these are no answer at a glance: the table then comes first.
_CARDS = 6

# With more models than these a page is a leaderboard: pictures of each are left to pages of their own.
_PICTURED = 12
_PICTURES = {"confusion", "curve", "embedding", "gallery", "prototypes", "slices", "training"}


def make_page(groups: Sequence[Group], title: str, certificates: Sequence[Certified] = ()) -> Page:
    """A chapter for each group of evaluations that compare, and one for certificates."""
    proofs = certificate_section(certificates, [entry.measured for group in groups for entry in group.entries])
    chapters = (*(_chapter(group) for group in groups), *(() if proofs is None else (proofs,)))
    footer = f"Made by repulse {__version__} from the records named above. "
    footer += "The same figures lie beside this page as Markdown and JSON."
    return Page(title, chapters, footer, figures(groups, certificates))


def _chapter(group: Group) -> Section:
    entries = group.entries
    blocks: list[Block] = [Cards(tuple(card(entry) for entry in entries))] if len(entries) <= _CARDS else []
    if len(entries) == 1:
        # What answers for one model stands open; the rest of its sections is folded.
        first = [made for name in ("curve", "attacks") if (made := SECTIONS[name](entries[0])) is not None]
        return Section(group.title, (*blocks, *first, _details(entries[0], {"curve", "attacks"})), group.anchor)
    picture, table = curve_of_many(entries, f"{group.anchor}-curves"), leaderboard(entries)
    ordered: list[Block] = [table] if picture is None else [picture, table]
    blocks += ordered if len(entries) <= _CARDS else ordered[::-1]
    exact = Text(precision(entries[0].record), "note")
    blocks.append(Section("Attack by attack", (comparison(entries), exact), folded=True))
    asked = matrix(entries)
    if asked is not None:
        about = Text("What each check measured, and what that means, stands with each model below.", "note")
        blocks.append(Section("Checks, model by model", (asked, about), folded=True))
    without = _PICTURES if len(entries) > _PICTURED else ()
    return Section(group.title, (*blocks, *(_details(entry, without) for entry in entries)), group.anchor)


def _details(entry: Entry, without: Collection[str] = ()) -> Section:
    """All sections of one evaluation, folded, without those that stand open."""
    sections = [made for name in SECTIONS if name not in without and (made := SECTIONS[name](entry)) is not None]
    about = ", ".join(part for part in (plain(entry.record.model.description, 90), _checks(entry)) if part)
    return Section(entry.label, tuple(sections), entry.anchor, folded=True, about=about)


def _checks(entry: Entry) -> str:
    return f"checks: {tally(entry.record)}" if entry.record.checks else ""
