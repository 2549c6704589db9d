# make train: install and train on generated images; make test: install and run the tests; make check: lint and types.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check

train: .venv/installed
	$(BIN)/python train.py experiment=quickstart

test: .venv/installed
	$(BIN)/python -m pytest -n 2

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
