.PHONY: train test lint clean

PYTHON ?= python3
BIN := .venv/bin

# The first call installs; later ones only after a change of the dependencies.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

train: .venv/installed
	$(BIN)/python train.py data=digits

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs build src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
