# The commands of the house. Each needs only Python 3.11 or later on the machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
TESTS ?=
SOURCES := shared functions infra tests
NODE_STAMP := infra/local/node_modules/.credoalert-stamp
NODE_INPUTS := $(addprefix infra/local/,package.json package-lock.json .npmrc node.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench up down lock clean

help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-python $(NODE_STAMP) ## Install everything that is needed, as the locks say

demo: setup ## Send one alert to thousands through four channels and reconcile it; DEMO="--recipients 20000" adds options
	@$(BIN)/credoalert demo $(DEMO)

test: setup ## Run the tests on a stack of their own; TESTS="tests/infra -k crash" runs some
	@$(BIN)/python -m pytest $(TESTS)

check: setup ## Lint, format, types and migrations, nothing is changed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/squawk --config .squawk.toml supabase/migrations/*.sql

bench: setup ## Measure, result in build/bench.json
	@mkdir -p build
	@$(BIN)/python -m infra.bench --json build/bench.json

up: setup ## Start the embedded stack in the background
	@$(BIN)/credoalert up

down: ## Stop the embedded stack
	@$(BIN)/credoalert down

lock: ## Resolve the dependencies anew and write the locks
	$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install -q uv
	build/lock/bin/uv pip compile pyproject.toml -o requirements.lock $(LOCK_OPTIONS)
	build/lock/bin/uv pip compile pyproject.toml --all-extras -c requirements.lock -o requirements-dev.lock $(LOCK_OPTIONS)
	cd infra/local && npm install --package-lock-only

clean: ## Remove what setup and the tests made (not the stack's home)
	rm -rf $(VENV) build infra/local/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-python: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@

$(NODE_STAMP): $(NODE_INPUTS) | $(VENV)/.stamp-python
	$(BIN)/python -m infra.local.node
