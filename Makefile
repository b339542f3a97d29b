# make demo: fine-tune a small model here, in minutes.  make test: every check.  make docs: the site.
# Both need only Python 3.11+ and the package index; they build $(VENV) when it is missing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements-dev.lock

.DEFAULT_GOAL := help
.PHONY: help demo test fast engines engine-check engine-tests quantised-tests gpu-check wheel-check soak docs format clean

help:
	@echo "make demo          fine-tune SmolLM2-135M on the built-in reviews, forward passes only (runs/demo)"
	@echo "make test          lint, format check, types, tests"
	@echo "make fast          the tests that take seconds, on all cores"
	@echo "make engine-check  the tests on SGLang and vLLM that every change runs; their environments are built (7 GB)"
	@echo "make engine-tests  all of them"
	@echo "make quantised-tests  bases in 4 and 8 bits, with bitsandbytes and torchao in a folder of their own"
	@echo "make gpu-check     what a GPU makes of this package, in 8 minutes, by $(PYTHON) as it is: nothing is installed"
	@echo "make wheel-check   build sdist and wheel; the wheel in an empty environment takes the demo's first steps"
	@echo "make soak          1,000 deaths of runs under settings drawn at random, against runs left alone (half an hour)"
	@echo "make docs          the documentation as a site in site/, its links checked"
	@echo "make format        rewrite the sources in the project's format"
	@echo "make clean         remove $(VENV), caches and build output (runs stay)"

demo: $(VENV)/.installed-demo
	$(BIN)/mezo train --config examples/demo.yaml --output runs/demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -m "not engine" --numprocesses auto --dist worksteal

fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow and not engine and not gpu"

# One after another: each starts a serving engine that takes all cores.
engine-tests: engines $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/engines/serving -m engine

engine-check: engines $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/engines/serving -m "engine and not slow"

# In a folder of their own: whatever imports transformers imports these two as well, which takes seconds and memory.
quantised-tests: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --constraint requirements-dev.lock \
	  --target build/quantised bitsandbytes torchao
	PYTHONPATH=build/quantised $(BIN)/python -m pytest tests/models/test_quantised.py

# With whatever Python has torch, Triton and the other packages: see docs/gpu.md. No network, no environment.
gpu-check:
	@mkdir -p build
	PYTHONPATH=src:.:$(PYTHONPATH) $(PYTHON) -m benchmarks gpu --minutes 8 --json build/gpu.json

engines:
	PYTHON=$(PYTHON) scripts/engine-env sglang
	PYTHON=$(PYTHON) scripts/engine-env vllm

wheel-check: $(VENV)/.installed-dev
	scripts/wheel-check $(BIN)/python

soak: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks soak --deaths 1000

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .hypothesis .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mezo needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# torch first and alone: a failure of the largest download is plain, and what follows finds it there.
$(VENV)/.installed-demo: pyproject.toml requirements-dev.lock | $(BIN)/pip
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-demo
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	$(PIP) --editable '.[dev]'
	@touch $@
