"""Data sets of the Hugging Face Hub, by their ids."""

from __future__ import annotations

from pathlib import Path

from repulse.data.sources import Split, register_source
from repulse.data.tables import read_tables, table_splits


@register_source("hub", takes=lambda source: not Path(source).exists())
def hub(
    source: str, name: str, *, image_column: str | None = None, label_column: str | None = None
) -> dict[str, Split]:
    """The splits of a data set on the Hub.

    Args:
        source: its id, such as `uoft-cs/cifar10`.
        name: what messages call it.
        image_column: column of the images; found by itself if there is only one.
        label_column: column of the labels; found by itself if it is plain.

    Raises:
        RepulseError: if it cannot be reached or read.
    """
    tables = read_tables("Hugging Face Hub id (or a local folder that does not exist)", source, path=source)
    return table_splits(tables, source, name, image_column, label_column)
