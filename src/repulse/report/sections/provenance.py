"""Where the figures come from: command, data, weights, versions, configuration."""

from __future__ import annotations

from collections.abc import Mapping

from repulse.report.blocks import Block, Code, Facts, Section, Text
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.words import threat
from repulse.subject.record import DataRecord, ModelRecord


@SECTIONS.register("provenance")
def section(entry: Entry) -> Section:
    """Everything needed to measure again."""
    record, measured = entry.record, entry.measured
    own = {
        "command": record.environment.get("command", ""),
        "measured": record.created,
        "place": measured.place,
        **of(record.model, record.data),
        "threat": threat(record),
        "seed": str(record.seed),
        "measured with": versions(record.environment),
        "trained with": versions(measured.environment or {}),
    }
    blocks: list[Block] = [facts(own)]
    if measured.config:
        blocks.append(Section("config.yaml", (Code(measured.config),), folded=True))
    if entry.same_model is not None:
        where = f"Prototypes, embedding and training of this model are shown under {entry.same_model.label}"
        blocks.append(Text(f"{where}, {threat(entry.same_model.record)}: the weights are the same.", "note"))
    return Section("Provenance", tuple(blocks))


def of(model: ModelRecord, data: DataRecord) -> dict[str, str]:
    """What a record says of its model and its data."""
    return {
        "description": model.description,
        "model": f"{model.parameters:,} parameters, SHA-256 {model.weights_sha256}",
        "data": f"{data.name}, {data.split}, {data.count:,} images of shape {tuple(data.image_shape)}, "
        f"SHA-256 {data.sha256}",
    }


def versions(environment: Mapping[str, str]) -> str:
    """An environment on one line, without the command."""
    return ", ".join(f"{name} {value}" for name, value in environment.items() if value and name != "command")


def facts(pairs: Mapping[str, str]) -> Facts:
    """Those that say something."""
    return Facts(tuple((name, value) for name, value in pairs.items() if value))
