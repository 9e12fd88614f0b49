# Every target sets itself up: it needs Python 3.11 or later and nothing else.
PYTHON ?= python3
BIN := .venv/bin
# One thread per test worker; the tests of threads and processes set their own.
TEST_WORKERS ?= 2

.PHONY: demo test lint format types imports unit browser slow docs clean

## Train a small model of every family and write runs/demo/index.html
demo: .venv/.installed
	$(BIN)/noumena demo

## Lint, format check, types, import contracts, tests
test: lint types imports unit browser

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.installed-dev
	$(BIN)/pyright

imports: .venv/.installed-dev
	$(BIN)/lint-imports

unit: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_WORKERS)

## The explorer's page in a headless Chromium; left out where there is none
browser: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_WORKERS) -m browser

## The tests that take minutes; NOUMENA_DATA points at the large data sets, where there are any
slow: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_WORKERS) -m slow

## Every block and command of the documentation is run; then it is built as HTML, in build/docs; a warning is an error
docs: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_WORKERS) -m 'docs and not slow'
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "noumena needs Python 3.11 or later; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/.installed: .venv/.python pyproject.toml constraints.txt
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[crystals,explore]'
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,docs]'
	touch $@

clean:
	rm -rf .venv runs build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
