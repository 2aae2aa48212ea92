# Every target creates .venv and installs what it needs; a stamp file lets the next call start at once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One thread per process: as many processes as cores already share the machine. One that has nothing left takes from the others:
# the longest tests come last.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
TESTS  ?=
# Versions that are taken: all pinned, or torch alone.
PINS   ?= constraints.txt
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS)
# Home of the CPU build of torch. Where it cannot be reached pip goes on with the index it is configured for.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help demo test test-slow test-newest coverage lint format types docs wheel-check bench clean

help:
	@echo "make demo         recover a glyph from a noisy measurement and write a report (about a minute)"
	@echo "make test         the test suite (minutes)"
	@echo "make test-slow    the long tests too"
	@echo "make test-newest  the test suite with the newest release of every dependency"
	@echo "make coverage     the test suite with the coverage of mtdcore (at least 90 %)"
	@echo "make lint types   ruff and mypy --strict;   make format   applies ruff"
	@echo "make docs         these pages and those of the Python interface, in build/site"
	@echo "make wheel-check  build, install into a clean environment, recover something there"
	@echo "make bench        timings, see bench/README.md"

demo: $(VENV)/.installed
	$(BIN)/mtd demo --force

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(TESTS)

test-slow: $(VENV)/.installed-dev
	$(PYTEST)

# An environment of its own; torch keeps its version, as the newest brings gigabytes of CUDA.
test-newest:
	@mkdir -p build && grep '^torch==' constraints.txt > build/torch.txt
	$(MAKE) test VENV=build/newest PINS=build/torch.txt

coverage: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" --cov=mtdcore --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheel-check: $(VENV)/.installed-dev
	.ci/wheel-check $(BIN)/python

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/speed/estep.py

clean:
	rm -rf build dist mtd-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is older or missing. Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

# torch comes first and alone, so that the second index is asked for one package only.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch
	$(PIP) -e '.[dask,dev,em,torch]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@
