import os
from pathlib import Path

import pytest
import torch

from repulse.common import notice

# The models of the tests are tiny: with more threads they spend their time waiting for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Networks made without a seed of their own are the same whichever tests ran before, and in whatever order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unsaid():
    """A note is printed once in a process; here, once in a test."""
    notice._said.clear()


@pytest.fixture
def real_data():
    """A function from the name of a real data set to its folder; skips the test where it is not at hand."""
    root = Path(os.environ.get("REPULSE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def folder(name):
        if not (root / name).is_dir():
            pytest.skip(f"no real data: neither REPULSE_TEST_DATA nor the default folder holds {name}")
        return root / name

    return folder
