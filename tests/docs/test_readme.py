"""The README says what the results say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_figures_are_those_of_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = script("readme")
    assert readme.filled(text) == text
    assert text.count("**number to quote**") == 3


def test_the_benchmarks_table_is_that_of_the_committed_records():
    table = ROOT / "results" / "benchmarks" / "table.md"
    assert table.read_text(encoding="utf-8") == script("readme").benchmark_tables()


def test_everything_public_can_be_fetched_from_the_package():
    import repulse

    for name in repulse.__all__:
        assert getattr(repulse, name) is not None
    assert {"ATTACKS", "RunConfig", "ensemble", "evaluate", "load_foreign", "__version__"} <= set(dir(repulse))


def test_importing_the_package_does_not_import_torch():
    code = "import sys, repulse; repulse.RepulseError, repulse.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
