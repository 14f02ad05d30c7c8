"""What a figure was measured with: versions, processor, device. No names of people or machines."""

from __future__ import annotations

import os
import platform

from repulse.version import __version__


def environment() -> dict[str, str]:
    """Versions of Python, PyTorch, NumPy and this package; operating system, processor, threads, accelerator."""
    import numpy as np
    import torch

    found = {
        "repulse": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"
