"""Freed memory is kept: seen by the page faults that it saves, each in a process of its own."""

import os
import subprocess
import sys

import pytest

from repulse.common.allocator import keep_memory

SCRIPT = """
import resource, sys
from repulse.common.allocator import keep_memory

kept = keep_memory() if sys.argv[1] == "keep" else False
block = b"x" * 40_000_000
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = b"x" * 40_000_000
    del block
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    """Whether memory is kept, and how many pages were asked for again."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=clean | environment, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


def test_memory_that_is_freed_is_not_asked_for_again():
    kept, few = faults("keep")
    if not kept:
        pytest.skip("this C library has no such setting")
    assert few < faults("plain")[1] / 10


def test_what_the_environment_says_stands():
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="1000000")[0] is False
    assert faults("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=1000000")[0] is False


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(monkeypatch, system):
    monkeypatch.setattr("sys.platform", system)
    assert keep_memory() is False
