# make demo         compress the example checkpoint to a fifth of its GFLOPs; the result is build/blip-madtp with a page about it
# make test         run all tests
# make test-fast    run the tests without the slow ones
# make test-oldest  run them with the oldest torch and transformers that pyproject.toml allows, in .venv-oldest
# make lint         run ruff, ruff format and mypy
# make dist         build the wheel in dist/
# make bench        time full-size models, dense and pruned, and write examples/bench.md; takes hours, or minutes with ARGS=--quick
#
# Each target first installs what it needs in .venv, once. You only need Python >= 3.11 with pip; choose one with
# `make PYTHON=/path/to/python3 ...`. constraints.txt has the versions. Settings of pip (PIP_INDEX_URL, PIP_FIND_LINKS ...)
# choose the package index, for example one with the CPU build of torch, which is smaller.

VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint $(CONSTRAINTS)
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python python3)
# Processes that run tests at the same time.
TEST_PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=worksteal --durations=10

.PHONY: help demo test test-fast test-oldest lint dist bench
help:
	@sed -n 's/^# \(make [a-z-]* .*\)/\1/p' Makefile

demo: $(VENV)/installed
	@mkdir -p build
	$(BIN)/madtp compress examples/blip.pt --gflops-budget 0.2 --output build/blip-madtp --overwrite
	$(BIN)/madtp report build/blip-madtp

# One thread per process: the models in the tests are tiny, and threads that share a core wait for each other.
test test-fast: export OMP_NUM_THREADS ?= 1
test: $(VENV)/installed-dev
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/installed-dev
	$(PYTEST) -m "not slow" $(ARGS)

test-oldest: build/oldest.txt
	$(MAKE) test-fast VENV=.venv-oldest CONSTRAINTS=build/oldest.txt

# The versions of constraints.txt, except for torch and transformers.
build/oldest.txt: pyproject.toml constraints.txt
	@mkdir -p build
	@sed -e '/^torch==/d' -e '/^transformers==/d' constraints.txt > $@
	@sed -nE 's/^ *"(torch|transformers)>=([0-9.]+).*/\1==\2/p' pyproject.toml >> $@

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pip builds the wheel in an environment of its own, which needs no other package in .venv.
dist: $(BIN)/pip
	@rm -f dist/madtp-*.whl
	$(BIN)/python -m pip --disable-pip-version-check wheel --no-deps --wheel-dir dist .

bench: $(VENV)/installed-bench
	$(BIN)/python examples/bench_speed.py $(ARGS)

# These files mark what is installed; they are newer than the files that they were installed from.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(PIP) --editable '.[report]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(PIP) --editable '.[bench]'
	@touch $@ $(VENV)/installed

# Use the first Python that is new enough. pip is written last, so an incomplete environment is completed here.
$(BIN)/pip:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "madtp needs Python 3.11 or newer, but $$python is $$("$$python" --version 2>&1)." >&2; \
	  echo "Install a newer one, or give its path: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found cannot make a virtual environment: its module venv or ensurepip is missing." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "$$found -m venv $(VENV)"; "$$found" -m venv $(VENV)
