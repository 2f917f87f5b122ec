# Needs python3 (3.11 to 3.13) and make; `make test` and `make ci` need node, npm and a C compiler as well.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
UPGRADE ?=

RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
# Stands in for Prisma's engines, of which none is used.
TRUE := $(firstword $(wildcard /bin/true /usr/bin/true))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	$(if $(UPGRADE),--upgrade) pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help run demo test soak bench generate lint format lock install ci clean

help: ## Show this.
	@echo "usage: make TARGET [ARGS='...']"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(RUNTIME) ## Run everything here: database, API, one worker. ARGS go to `tollgate run`: make run ARGS=--demo
	@exec $(BIN)/tollgate run $(ARGS)

demo: $(RUNTIME) ## The same with the provider emulator: needs no key, charges nothing.
	@exec $(BIN)/tollgate run --demo $(ARGS)

test: $(DEV) ## Run the whole suite. ARGS go to pytest: make test ARGS='-k limits'. JOBS=4 for more processes.
	$(BIN)/python -m pytest -n $(JOBS) -m "not soak" $(ARGS)

soak: $(DEV) ## Run the long proofs: workers killed for minutes, no limit broken.
	$(BIN)/python -m pytest -m soak $(ARGS)

bench: $(DEV) ## Measure, side by side with others, and print the table.
	$(BIN)/python -m bench $(ARGS)

generate: $(DEV) ## Rewrite what is generated: app/db/rows.py and app/schema.graphql.
	PATH="$(CURDIR)/$(BIN):$$PATH" PRISMA_QUERY_ENGINE_BINARY=$(TRUE) PRISMA_SCHEMA_ENGINE_BINARY=$(TRUE) prisma generate
	$(BIN)/python -m app.schema --write
	$(BIN)/python -m app.configuration.schema --write

lint: $(DEV) ## Check style, formatting, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## Format the code, and mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(RUNTIME) ## Lock the dependencies anew after an edit of pyproject.toml. UPGRADE=1 takes the newest versions.
	$(PIP) install uv
	$(COMPILE) --group build --output-file requirements.lock
	$(COMPILE) --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock

install: $(DEV) ## Make .venv with all that development needs, and nothing more.

ci: ## Do all that CI does.
	@bash .ci/run

clean: ## Remove .venv and the tools' caches. The data in .tollgate stays.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info

# Made anew when a lock changes, so that nothing of the old one stays. Every package is checked against its hash; the
# project itself is built by the setuptools of the lock.
$(RUNTIME): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Tollgate needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making $(VENV) from requirements.lock"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@echo "Adding requirements-dev.lock"
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@
