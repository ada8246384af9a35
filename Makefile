# Every target sets up what it needs: a .venv here, renewed when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
BENCHMARKS = $(sort $(wildcard benchmarks/*.py))

.PHONY: demo test lint bench clean

demo: .venv/installed
	$(BIN)/python examples/topics.py demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv demo dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python >= 3.11, give PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,examples]"
	touch $@ .venv/installed
