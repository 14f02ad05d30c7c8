"""Evaluations side by side: only those that measured the same thing stand in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from repulse.evaluation.record import Record
from repulse.report.collect import Measured
from repulse.report.pooled import Pool
from repulse.report.pooled import pool as pooled
from repulse.report.words import plain, setting


@dataclass(frozen=True, eq=False)
class Entry:
    """An evaluation with the name that tells it from the others of its group, and its anchor on the page.

    Args:
        measured: the evaluation.
        label: what the page calls it: its run folder, or the model.
        anchor: unique on the page.
        pool: all evaluations of these weights on these images that the report knows.
        same_model: an earlier one of the same weights, which shows what belongs to the model; None: this one does.
    """

    measured: Measured
    label: str
    anchor: str
    pool: Pool
    same_model: Entry | None = None

    @property
    def record(self) -> Record:
        """What was measured."""
        return self.measured.record

    @cached_property
    def robust(self) -> float:
        """The share of images that no evaluation in the pool fooled at or inside the eps, in [0, 1]."""
        record = self.record
        quoted = record.worst_case_accuracy if record.verdict is None else record.verdict.quote
        return min(quoted, self.pool.worst_case(record.eps))


@dataclass(frozen=True, eq=False)
class Group:
    """Evaluations on the same images, in the same norm, with the same eps."""

    title: str
    anchor: str
    entries: tuple[Entry, ...]


def grouped(evaluations: Sequence[Measured]) -> list[Group]:
    """Sort evaluations into groups, in the order in which they come, and by eps where only that differs.

    Figures of other images, other norms or other eps don't compare, so they never share a table. Two data sets of one
    name are told apart by their digest; runs of one name by a number.
    """
    groups: dict[tuple[str, str, str, str, float], list[Measured]] = {}
    for each in evaluations:
        record = each.record
        key = (record.data.name, record.data.split, record.data.sha256, record.norm, record.eps)
        groups.setdefault(key, []).append(each)
    places = {key[:4]: place for place, key in reversed(list(enumerate(groups)))}
    groups = dict(sorted(groups.items(), key=lambda group: (places[group[0][:4]], group[0][4])))
    titles = Counter(setting(members[0].record) for members in groups.values())
    result = []
    first: dict[str, Entry] = {}
    number = 0
    for place, members in enumerate(groups.values(), 1):
        title = setting(members[0].record)
        if titles[title] > 1:
            title += f", data {members[0].record.data.sha256[:8]}"
        entries = []
        for member, label in zip(members, numbered([_name(each) for each in members]), strict=True):
            number += 1
            weights = member.record.model.weights_sha256
            entry = Entry(member, label, f"e{number}", pooled(member, evaluations), first.get(weights))
            first.setdefault(weights, entry)
            entries.append(entry)
        result.append(Group(plain(title), f"g{place}", tuple(entries)))
    return result


def numbered(names: Sequence[str]) -> list[str]:
    """Names told apart by a number where there are several of one."""
    alike, seen, result = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        result.append(f"{name} #{seen[name]}" if alike[name] > 1 else name)
    return result


def _name(measured: Measured) -> str:
    """A run is called what its folder is; a model from elsewhere what its record calls it."""
    folder = "" if measured.run is None else measured.run.resolve().name
    return plain(folder) or plain(measured.record.model.name) or "model"
