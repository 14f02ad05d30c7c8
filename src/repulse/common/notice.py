"""What a user should know although it is no error: one line on standard error."""

from __future__ import annotations

import os
import sys

_said: set[str] = set()


def notice(text: str) -> None:
    """Print `repulse: note: TEXT` as one line on standard error, once in a process.

    Standard output is for results. Of the processes that `torchrun` started, the first one speaks.
    """
    line = f"repulse: note: {' '.join(text.split())}"
    if line not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(line)
        print(line, file=sys.stderr, flush=True)  # noqa: T201
