# What can be done here; `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors stay visible, remarks about single indexes do not.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
ARGS ?=
# Two processes of one thread each: small tensors gain nothing from a second thread.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help audit chat check test slow snapshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

audit: $(VENV)/.installed ## fetch the weights, audit the default subject, say where the report is
	@$(BIN)/dragoman weights pull >&2
	@$(BIN)/dragoman audit --quick $(ARGS)

chat: $(VENV)/.installed ## the terminal application
	@$(BIN)/dragoman weights pull
	@$(BIN)/dragoman chat $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, import contracts, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy tests

# In the order of folders: the slow tests of integration first, so that none is left to wait for.
test: $(VENV)/.installed-dev ## every test that takes no chat model
	@$(BIN)/dragoman weights pull smollm2 minilm efficientnet-lite0 efficientnet-lite2
	$(ONE_THREAD) $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(VENV)/.installed-dev ## the tests that need the local chat model or minutes
	@$(BIN)/dragoman weights pull smollm2 minilm efficientnet-lite0 efficientnet-lite2 qwen2.5-coder-1.5b
	$(BIN)/pytest -q -m slow $(ARGS)

snapshots: $(VENV)/.installed-dev ## accept the terminal's present look as the expected one
	$(BIN)/pytest -q --snapshot-update tests/snapshots tests/unit/tui $(ARGS)

clean: ## delete caches and build outputs; the environment and the data folder stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf .coverage snapshot_report.html src/*.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: Python 3.11 or newer is needed; name one with `make PYTHON=python3.12 …`' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The build runs in this environment, with the pinned setuptools: an isolated one would fetch another.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing into $(VENV) (minutes, once)' >&2
	$(PIP) install -c constraints.txt setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing into $(VENV) (minutes, once)' >&2
	$(PIP) install -c constraints.txt setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $(VENV)/.installed $@
