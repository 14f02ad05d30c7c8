"""Random numbers that depend on names, not on the order in which things happen to run."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed from any keys, the same on every machine: `derive_seed(seed, "augment", epoch, batch)`."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive_seed(*keys)`."""
    return torch.Generator().manual_seed(derive_seed(*keys))
