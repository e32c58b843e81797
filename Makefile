# Everything a person does here, one word each: `make` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=          # interpreter for .venv (default: the first Python >= 3.11 found)
TORCH_INDEX ?=     # extra package index for torch, e.g. https://download.pytorch.org/whl/cpu
JOBS ?= 2          # test processes
OUT ?= runs/lenet5 # where `make run` writes
DATA ?=            # folder with MNIST's original files: `make run` then trains on MNIST
ARGS ?=            # passed on to pytest, e.g. ARGS="-k spice -x"

override PYTHON := $(strip $(PYTHON))
override TORCH_INDEX := $(strip $(TORCH_INDEX))
override JOBS := $(strip $(JOBS))
override OUT := $(strip $(OUT))
override DATA := $(strip $(DATA))

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORE := packages/xbar-core[cli,plots,lab,sweep,tensorboard]
# .base: the core and every tool, no deep-learning framework. .torch: PyTorch as well. .full: TensorFlow too.
BASE := .venv/.base
TORCH := .venv/.torch
FULL := .venv/.full
INPUTS := pyproject.toml constraints.txt $(wildcard packages/*/pyproject.toml)

.PHONY: help setup run demo test test-core test-slow golden lint format types docs studies bench clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  variables: PYTHON, TORCH_INDEX, JOBS, OUT, DATA, ARGS (see the top of the Makefile)"

setup: $(FULL) ## create .venv with the packages and all tools

# The embedded digits are few: smaller batches make as many steps of them as they need.
RECIPE = $(if $(DATA),--dataset mnist --data $(DATA) --batch 128 --epochs 5,--dataset digits --batch 32 --lr 0.02 --epochs 20)

run: $(TORCH) demo ## what xbar does: circuits and chips (demo), then LeNet-5 trained natively and on chips
	$(BIN)/xbar train --network lenet5 --preset txsim-8bit --compare native,ideal $(RECIPE) --out $(OUT) --force

demo: $(BASE) ## solve an array with every circuit model, read a matrix on preset chips (to runs/demo)
	$(BIN)/xbar demo --out runs/demo --force

test: $(FULL) ## run the test suite
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-core: $(BASE) ## run the core's tests, without torch and TensorFlow
	$(BIN)/python -m pytest -n $(JOBS) tests/core tests/test_architecture.py $(ARGS)

test-slow: $(FULL) ## run the tests that are too slow for every day
	$(BIN)/python -m pytest -m slow $(ARGS)

golden: $(BASE) ## compute the golden files again with ngspice
	$(BIN)/python tests/golden/make_golden.py

lint: $(FULL) ## check style, formatting and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(BASE) ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(FULL) ## check the types (mypy, strict)
	$(BIN)/mypy

docs: $(BASE) ## build the documentation into docs/_build/html, warnings as errors
	@rm -rf docs/api/generated
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

studies: $(FULL) ## the paper's figures at small scale, with verdicts, and docs/results.md over them
	$(BIN)/xbar reproduce all --scale small --page docs/results.md

bench: $(FULL) ## run every benchmark, one after the other
	@for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

clean: ## remove .venv and everything that was built
	rm -rf .venv docs/_build docs/api/generated runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find packages tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf packages/*/src/*.egg-info packages/*/build

# A broken or missing .venv is made anew; a good one is kept.
$(BASE): $(INPUTS)
	@if ! $(BIN)/python -c "import sys, pip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	  found=; \
	  for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	    if "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	      found="$$python"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "xbar needs Python 3.11 or newer; tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)." >&2; \
	    echo "Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  rm -rf .venv; \
	  if ! "$$found" -m venv .venv; then \
	    rm -rf .venv; \
	    echo "$$found cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	fi
	@# pip older than 25.1 does not know dependency groups
	@if ! $(PIP) install --help | grep -q -- --group; then $(PIP) install -q --upgrade "pip>=25.1"; fi
	$(PIP) install -q -c constraints.txt --group dev -e "$(CORE)"
	@touch $@

$(TORCH): $(BASE)
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --group torch \
	  -e "$(CORE)" -e "packages/xbar-torch[lab]"
	@touch $@

$(FULL): $(TORCH)
	$(PIP) install -q -c constraints.txt --group tf -e "$(CORE)" -e "packages/xbar-tf[lab]"
	@touch $@
