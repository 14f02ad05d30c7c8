"""Files of the Hugging Face Hub, or of a folder that stands for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repulse.common.errors import RepulseError


def fetched(name: str, **options: Any) -> Path:
    """The folder of a model: that folder itself, or the Hub's files, downloaded if they are not in the cache.

    Args:
        name: `ORG/NAME`, or a folder.
        options: as for `huggingface_hub.snapshot_download`: `revision`, `token`, `cache_dir`, ...

    Raises:
        RepulseError: if the Hub has no such model, or cannot be reached and it is not in the cache.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, **options))
    except HFValidationError:
        raise RepulseError(f"{name} is neither a folder nor a name ORG/NAME of the Hugging Face Hub") from None
    except RepositoryNotFoundError:
        raise RepulseError(
            f"the Hugging Face Hub has no model {name}, or it is private and needs `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise RepulseError(f"hub:{name} is not in the cache, and the Hugging Face Hub cannot be reached") from None
    except OSError as error:
        raise RepulseError(f"cannot fetch {name} from the Hugging Face Hub: {str(error).splitlines()[0]}") from error
