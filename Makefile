PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: env demo test test-slow test-goldens benchmark lint format

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(STAMP)

env: $(STAMP)

# A tiny model on generated scenes, from nothing to a report: trains, evaluates, prints the table and where the report is.
demo: $(STAMP)
	$(BIN)/python run.py trainer.steps=300

# One test process per core and one thread each: PyTorch's threads and pytest's processes would fight over the cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow and not cuda" --ignore tests/benchmarks

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --ignore tests/benchmarks

test-goldens: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/goldens

# Speed and memory as ratios; not part of the tests, because a busy machine proves nothing.
benchmark: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
