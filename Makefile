# Everything a contributor runs; CI runs the same targets. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed: enough to run a node on this machine, or the developers' tools besides.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# mypy's Django plugin and the OpenAPI document read the settings, which don't load without tokens.
TOOLS_ENV := ENV_FILE=/dev/null PRIMARY_TOKEN=type-checking-1 SECONDARY_TOKEN=type-checking-2

# Many tests wait for real servers, so two at a time take little more than half as long.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url --quiet

.PHONY: help demo run check lint audit test test-slow format bench openapi lock install clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(RUN) ## run a whole network on this machine, with a simulated exchange
	@exec $(BIN)/python -m proxy_site.local.demo

run: $(RUN) ## run one node on this machine, by .env
	@exec $(BIN)/python manage.py run_node

check: lint audit test ## lint, audit and fast tests: what a change must pass

lint: $(DEV) ## check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(TOOLS_ENV) $(BIN)/mypy
	$(BIN)/lint-imports

audit: $(DEV) ## look for known vulnerabilities of what a node installs
	@.ci/audit

test: $(DEV) ## run the fast tests
	$(PYTEST)

test-slow: $(DEV) ## run the tests that are marked slow (half an hour)
	$(PYTEST) -m slow

format: $(DEV) ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs wrk, and nginx for its column. benchmarks/README.md has the tables.
bench: $(DEV) ## measure everything (half an hour), or with QUICK=1 only see that it works
	@for name in reads gossip isolation flood cycle growth peers serving; do \
		$(BIN)/python -m benchmarks.$$name $(if $(QUICK),--quick) || exit 1; \
	done

# What GET /openapi.json serves; a test says when it is stale.
openapi: $(DEV) ## write the API's description anew
	$(TOOLS_ENV) $(BIN)/python manage.py write_openapi

# Versions and hashes only: no addresses, so that any package index serves them.
lock: $(DEV) ## lock the newest versions that pyproject.toml allows and the locks don't hold back
	$(INSTALL) uv
	$(COMPILE) --extra postgres -o requirements.lock
	$(COMPILE) --extra postgres --extra embedded -c requirements.lock -o requirements-run.lock
	$(COMPILE) --all-extras -o requirements-dev.lock

install: $(DEV) ## install the developers' tools into .venv

clean: ## remove .venv and everything that was made
	rm -rf $(VENV) var staticfiles .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): requirements-run.lock | $(BIN)/python
	$(INSTALL) --require-hashes -r requirements-run.lock
	@touch $@

$(DEV): requirements-dev.lock | $(BIN)/python
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@ $(RUN)
