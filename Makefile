PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: env demo test test-slow test-goldens lint format

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $(STAMP)

env: $(STAMP)

# A tiny model on generated scenes, from nothing to a report: trains, evaluates, prints the table and where the report is.
demo: $(STAMP)
	$(BIN)/python run.py

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow and not cuda"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow"

test-goldens: $(STAMP)
	$(BIN)/python -m pytest -n auto tests/goldens

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
