# Each of these commands sets up what it needs; `make demo` and `make test` are the first two.
# pip would compile all of every package, three times as much as is ever imported. `fedlit doctor` imports what runs
# import, which compiles that, and tells what the machine has.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
BIN := $(VENV)/bin

.PHONY: demo test test-all faults bench interop docs check lint format clean

demo: $(VENV)/.installed
	$(BIN)/fabric run --accelerator=cpu --devices=2 experiments/federate.py experiment=demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-all: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow"

# Known faults, planted one after the other in a copy: the tests of every push must see each.
faults: $(VENV)/.installed
	$(BIN)/python tests/faults/see_red.py

# Every benchmark of experiments/benchmarks in one table; `make bench BENCH=--quick` shows that all of them run.
bench: $(VENV)/.installed
	$(BIN)/python experiments/benchmarks/bench.py $(BENCH)

# A result through peft, transformers, lm-eval and TRL and back, in an environment of its own below build/.
interop:
	PYTHON=$(PYTHON) tests/interop/run.sh

# The site of docs/ in build/site; what it warns of is an error.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --write-all --fail-on-warning --keep-going --quiet docs build/site

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/fedlit doctor
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
