"""Memory that is kept instead of being given back to the system and asked for again."""

from __future__ import annotations

import ctypes
import os
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# What `mallopt` takes: an int. Older versions of glibc accept no larger threshold than 32 MiB.
_THRESHOLDS = (2**31 - 1, 32 * 2**20)


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, to use it again; returns whether it will.

    By default glibc maps a large tensor afresh each time and gives it back afterwards, and the system must then fill
    every page with zeros again. A forward pass of a convolutional network does that for every layer. Here tensors
    below 2 GiB come from memory that the process keeps: it takes as much as it ever needed, up to what fragmentation
    adds, until it ends.

    Works on Linux with glibc. Elsewhere, and where the environment sets any of malloc's thresholds (`MALLOC_...`,
    `GLIBC_TUNABLES`), nothing is changed.

    Source: the GNU C Library Reference Manual, section 3.2.3.10, Malloc Tunable Parameters.
    """
    if not sys.platform.startswith("linux"):
        return False
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        # Another C library.
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    mapped = any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _THRESHOLDS)
    # -1: never.
    return mapped and bool(mallopt(_M_TRIM_THRESHOLD, -1))
