# `make demo` and `make test` do all the set-up: environment, install, run.

# The first Python of 3.12 or later that runs; override with `make PYTHON=/path/to/python ...`. One
# that is given has an environment of its own, .venv-3.12 for example.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
EXTRAS ?= dev
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("{}.{}".format(*sys.version_info))')
endif
BIN := $(VENV)/bin

.PHONY: help demo test tests test-quick test-all test-cuda-compile lint format environment system-packages clean

help:  ## What the targets do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

environment: $(VENV)/installed  ## Virtual environment with ppl_cnn and its development tools

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ppl_cnn needs Python 3.12 or later, and none was found on PATH. Give one: make PYTHON=/path/to/python3.13 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/installed  ## Samples a filter and all classes of the embedded CNN, 2 minutes on two cores
	$(BIN)/python -m ppl_cnn.sample --unit conv5:12 --chains 8
	$(BIN)/python -m ppl_cnn.sample --unit fc8:0-9 --kernel resample --draws 100 --out runs/classes

lint: $(VENV)/installed  ## Formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files in the order of conftest.py: xdist would put those of few tests last, and these are the longest.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Types are checked beside the tests, which leaves a core idle for the shorter time.
test: $(VENV)/installed  ## Lint, types, tests and the notebook, 15 minutes on two cores
	@$(MAKE) --no-print-directory --jobs=2 lint tests

tests: $(VENV)/installed
	$(PYTEST)

# Each room's tests that take little: what another Python or other versions would break shows here.
QUICK := tests/options tests/models/formats tests/inference/runs tests/inference/kernels/test_own_kernel.py \
	tests/inference/training/test_recipe.py tests/test_imports.py tests/test_init.py

test-quick: $(VENV)/installed  ## A part of the tests, 2 minutes; with PYTHON=python3.12 on that Python
	$(PYTEST) $(QUICK)

test-all: lint  ## The tests and the long proofs, an hour and more on two cores
	$(PYTEST) -m "long or not long"

test-cuda-compile: $(VENV)/installed  ## Compiles the programs for H100 and H200, without a GPU; needs EXTRAS=dev,cuda-compile
	$(BIN)/python -m pytest -m "long or not long" tests/machines

format: $(VENV)/installed  ## Formats the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

DEBIAN_PACKAGES := chromium chromium-driver dataset-fashion-mnist
APT := DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20

system-packages:  ## As root on Debian: a browser and a data set, without which some tests skip
	dpkg --status $(DEBIAN_PACKAGES) >/dev/null 2>&1 || \
		{ $(APT) update && $(APT) install --yes --no-install-recommends $(DEBIAN_PACKAGES); }

clean:  ## Removes environments and caches (never runs/)
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache
