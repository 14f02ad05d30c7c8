"""Files that are either whole or absent, and tensors on disk without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from repulse.common.errors import RepulseError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the file system refuses within this context, for want of room or right, is one line about `path`.

    Raises:
        RepulseError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise RepulseError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between.

    Raises:
        RepulseError: if the file cannot be written (no space, no permission); the old file is then untouched.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; results are for sharing, so honour the umask like open() does.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # noqa: PTH101
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors and string metadata as one safetensors file, atomically; equal ones give equal bytes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = save(plain, metadata=dict(metadata or {}))
    # The library writes metadata in an order that changes from call to call.
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:end])
    if metadata:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, len(text).to_bytes(8, "little") + text + written[end:])


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, and its metadata.

    Raises:
        RepulseError: if the file is absent or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise RepulseError(f"{path} is not a whole safetensors file: {error}") from error


def sha256_of(*parts: bytes | Tensor) -> str:
    """The SHA-256 of bytes and tensors, one after the other, as hexadecimal digits.

    A tensor counts with its data type and shape, so that equal bytes of another shape give another digest.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            whole = part.detach().cpu().contiguous()
            digest.update(f"{whole.dtype}{tuple(whole.shape)}".encode())
            # numpy() shares memory: no copy of a data set is made just to hash it. bfloat16 has no numpy twin.
            digest.update(whole.view(-1).view(dtype=_bytes_view(whole)).numpy().data.cast("B"))
        else:
            digest.update(part)
    return digest.hexdigest()


def _bytes_view(tensor: Tensor) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
