"""The house as `pyproject.toml` draws it: a room imports only from rooms below it, and nothing goes in a circle."""

from pathlib import Path

from importlinter import cli

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_no_arrow_of_imports_runs_upwards(capsys):
    kept = cli.lint_imports(config_filename=str(PROJECT), no_cache=True) == cli.EXIT_STATUS_SUCCESS
    assert kept, capsys.readouterr().out
