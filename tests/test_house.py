"""The house's one rule: a room imports only from rooms above it, and the common hall from no room."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "repulse"
ROOMS = ["prototypes", "data", "models", "attacks", "training", "evaluation", "report", "reproduce"]
HALL = ["errors", "files", "mode", "registry", "seeding", "settings", "units", "version", "environment"]
# Attacks see a callable, a threat and tensors; prototypes see PyTorch; neither knows what else is in the house.
MAY_SEE = {room: set(ROOMS[:index]) for index, room in enumerate(ROOMS)} | {
    "data": set(),
    "attacks": set(),
    "prototypes": set(),
    # Whole comparisons are made of whole runs and their evaluations.
    "reproduce": set(ROOMS) | {"config", "measuring", "presets", "runs"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("repulse."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("repulse."))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_above_it(room):
    allowed = MAY_SEE[room] | {room} | set(HALL)
    for path in (SOURCE / room).rglob("*.py"):
        assert set(imported(path)) <= allowed, path.name


@pytest.mark.parametrize("name", HALL)
def test_the_hall_imports_from_no_room(name):
    assert set(imported(SOURCE / f"{name}.py")) <= set(HALL)
