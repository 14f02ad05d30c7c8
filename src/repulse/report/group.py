"""Evaluations side by side: only those that measured the same thing stand in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from repulse.evaluation.record import Record
from repulse.report.collect import Measured
from repulse.report.words import plain, setting


@dataclass(frozen=True, eq=False)
class Entry:
    """An evaluation with the name that tells it from the others of its group, and its anchor on the page."""

    measured: Measured
    label: str
    anchor: str

    @property
    def record(self) -> Record:
        """What was measured."""
        return self.measured.record


@dataclass(frozen=True, eq=False)
class Group:
    """Evaluations on the same images, in the same norm, with the same eps."""

    title: str
    entries: tuple[Entry, ...]


def grouped(evaluations: Sequence[Measured]) -> list[Group]:
    """Sort evaluations into groups, in the order in which they come.

    Figures of other images, other norms or other eps don't compare, so they never share a table. Two data sets of one
    name are told apart by their digest; models of one name by their run folder, and by a number if that is not enough.
    """
    groups: dict[tuple[str, str, str, str, float], list[Measured]] = {}
    for each in evaluations:
        record = each.record
        key = (record.data.name, record.data.split, record.data.sha256, record.norm, record.eps)
        groups.setdefault(key, []).append(each)
    titles = Counter(setting(members[0].record) for members in groups.values())
    result = []
    number = 0
    for members in groups.values():
        title = setting(members[0].record)
        if titles[title] > 1:
            title += f", data {members[0].record.data.sha256[:8]}"
        entries = []
        for member, label in zip(members, _labels(members), strict=True):
            number += 1
            entries.append(Entry(member, label, f"e{number}"))
        result.append(Group(plain(title), tuple(entries)))
    return result


def _labels(members: Sequence[Measured]) -> list[str]:
    names = [plain(member.record.model.name) or "model" for member in members]
    alike = Counter(names)
    names = [
        f"{name} ({plain((member.run or member.folder).resolve().name)})" if alike[name] > 1 else name
        for name, member in zip(names, members, strict=True)
    ]
    alike, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if alike[name] > 1:
            seen[name] += 1
            names[i] = f"{name} #{seen[name]}"
    return names
