# make demo    compress the example checkpoint to a fifth of its GFLOPs, result in build/blip-madtp
# make test    run the tests
# make lint    ruff, ruff format and mypy
# make bench   time full-size models, dense and pruned, into examples/bench.md: hours, or minutes with ARGS=--quick
#
# Each installs what it needs into .venv first, once. Only Python >= 3.11 with pip is needed; choose one with
# `make PYTHON=/path/to/python3 ...`. constraints.txt says which versions; pip's own settings (PIP_INDEX_URL,
# PIP_FIND_LINKS ...) say where from, for example an index with torch's CPU build, which is smaller.

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python python3)

.PHONY: help demo test lint bench
help:
	@sed -n 's/^# \(make [a-z]* .*\)/\1/p' Makefile

demo: .venv/installed
	@mkdir -p build
	$(BIN)/madtp compress examples/blip.pt --gflops-budget 0.2 --output build/blip-madtp --overwrite

# One thread: the tests' models are tiny, and threads that share their cores with another job wait for each other.
test: export OMP_NUM_THREADS ?= 1
test: .venv/installed-dev
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python examples/bench_speed.py $(ARGS)

# Stamps: younger than what they were installed from.
.venv/installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/installed

.venv/installed-bench: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) --editable '.[bench]'
	@touch $@ .venv/installed

# The first Python that is new enough. pip is written last, so a half-made environment is completed here.
$(BIN)/pip:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "madtp needs Python 3.11 or newer, but $$python is $$("$$python" --version 2>&1)." >&2; \
	  echo "Install one, or say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found cannot make a virtual environment: its module venv or ensurepip is missing." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "$$found -m venv .venv"; "$$found" -m venv .venv
