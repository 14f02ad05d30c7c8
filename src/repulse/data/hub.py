"""Data sets of the Hugging Face Hub, by their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from repulse.common.errors import RepulseError
from repulse.data.sources import SOURCES, Columns, Source, Split
from repulse.data.tables import read_tables, table_splits

_PATIENCE_SECONDS = 10.0


@SOURCES.register("hub")
class Hub(Source):
    """A data set on the Hub, by an id such as `uoft-cs/cifar10`."""

    has_columns: ClassVar[bool] = True

    @classmethod
    def takes(cls, place: str) -> bool:
        """Whatever is no folder."""
        return not Path(place).exists()

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """Its splits.

        Raises:
            RepulseError: if there is no such data set, or it cannot be reached or read.
        """
        kind = "Hugging Face Hub id (or a local folder that does not exist)"
        reached = _is_there(place)
        try:
            with _from_the_cache_alone(unless=reached):
                tables = read_tables(kind, place, path=place)
        except RepulseError as error:
            if reached or not isinstance(error.__cause__, ConnectionError):
                raise
            raise RepulseError(
                f"there is no folder {place}, and the Hugging Face Hub, whose id it may be, cannot be reached"
            ) from error
        return table_splits(tables, place, name, columns)


def _is_there(place: str) -> bool:
    """Whether the Hub answers that it has this data set; False: it cannot be reached.

    Raises:
        RepulseError: if it answers that it has none.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if HF_HUB_OFFLINE:
        return False
    try:
        HfApi().dataset_info(place, timeout=_PATIENCE_SECONDS)
    except (HFValidationError, RepositoryNotFoundError):
        raise RepulseError(
            f"{place} is neither a folder nor a data set of the Hugging Face Hub (or that is private, and needs "
            "`hf auth login`)"
        ) from None
    except HfHubHTTPError:
        # It has answered; what is wrong, whoever reads the data set will say.
        return True
    except Exception:  # of whichever library makes its requests
        return False
    return True


@contextmanager
def _from_the_cache_alone(*, unless: bool) -> Iterator[None]:
    """No requests within this context: to a Hub out of reach they are tried, and printed, for half a minute."""
    import datasets
    import huggingface_hub.constants

    if unless:
        yield
        return
    switches: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in switches]
    for module in switches:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(switches, before, strict=True):
            module.HF_HUB_OFFLINE = value
