# The two commands a newcomer needs are `make demo` and `make test`. Each makes a virtual environment in .venv if there
# is none, installs into it what constraints.txt and pyproject.toml say, and does its work.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# One page of each kind.
REPORTS ?= runs/demo/report.html results/fashion-mnist/report.html results/certified/report.html \
  results/reproduce/fashion/cpu/report.html

.PHONY: demo test examples release-check lint format types docs browser clean

demo: .venv/.installed
	$(BIN)/repulse demo

test: .venv/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not others"

# The examples in other people's frameworks, and their models: large packages, slow to import.
examples: .venv/.installed-test .venv/.installed-examples
	$(BIN)/python -m pytest -m others tests/examples tests/foreign

lint: .venv/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.installed-lint
	$(BIN)/mypy

docs: .venv/.installed-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_build/html

# The wheel and the source archive, and the wheel tried in an empty environment: what a tag would release.
release-check:
	PYTHON=$(PYTHON) .ci/release

# Opens reports in a headless Chromium, which must be installed: see .ci/run.
browser: .venv/.installed-browser
	set -e; for report in $(REPORTS); do \
	  echo "$$report"; $(BIN)/python .ci/check_report.py "$$report" --screenshots "runs/screenshots/$$report"; done

clean:
	rm -rf .venv build dist docs/_build docs/made .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/.made:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"repulse needs Python 3.11 to 3.13, but $(PYTHON) is {v[0]}.{v[1]}; name another by PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

# Installed again whenever a dependency changes.
.venv/.installed: .venv/.made pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

# The converter of ONNX files without torchvision, which it needs for detectors only, and which must fit PyTorch's build.
.venv/.installed-test: .venv/.installed
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps 'onnx2pytorch>=0.6'
	touch $@

.venv/.installed-%: .venv/.installed
	$(PIP) --editable '.[$*]'
	touch $@
