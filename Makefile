.PHONY: train test test-faults test-distributed lint reproduce results bench profile clean

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
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-distributed: .venv/installed
	$(BIN)/python -m pytest -m distributed

# The disks as root only.
test-faults: .venv/installed
	FAULTS=results/faults.json $(BIN)/python -m pytest -m '' tests/faults
	$(BIN)/python docs/reliability.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reproduce: .venv/installed
	$(BIN)/python -m parsimony.reproduce $(ARGS)
	$(MAKE) results

results: .venv/installed
	$(BIN)/python -m parsimony.published
	$(BIN)/python docs/groups.py

# TensorFlow apart from what it is compared with: TensorBoard loads it where it finds it.
.venv-bench/installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet --editable '.[bench]'
	touch $@

bench: .venv/installed .venv-bench/installed
	$(BIN)/python benchmarks/bench.py --keras-python .venv-bench/bin/python $(ARGS)
	$(BIN)/python benchmarks/table.py

MODEL ?= mnist_sep
profile: .venv/installed
	$(BIN)/python benchmarks/step_profile.py $(MODEL) $(ARGS)

clean:
	rm -rf .venv .venv-bench runs build src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
