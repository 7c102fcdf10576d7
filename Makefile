# Everything a contributor runs; CI runs the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# mypy's Django plugin and the OpenAPI document read the settings, which don't load without tokens.
TOOLS_ENV := ENV_FILE=/dev/null PRIMARY_TOKEN=type-checking-1 SECONDARY_TOKEN=type-checking-2

# Many tests wait for real servers, so two at a time take little more than half as long.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: install demo run test test-all lint format audit check bench openapi lock clean

install: $(STAMP)

$(STAMP): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $(STAMP)

demo: install
	@exec $(BIN)/python -m proxy_site.local.demo

run: install
	@exec $(BIN)/python manage.py run_node

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m ''

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(TOOLS_ENV) $(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: install
	@.ci/audit

check: lint audit test

# Needs wrk, and nginx for its column; half an hour. benchmarks/README.md has the tables.
bench: install
	@for name in reads gossip isolation flood cycle growth peers serving; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; \
	done

# What GET /openapi.json serves; a test says when it is stale.
openapi: install
	$(TOOLS_ENV) $(BIN)/python manage.py write_openapi

# Versions and hashes only: no addresses, so that any package index serves them.
lock: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra postgres \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-dev.lock

clean:
	rm -rf $(VENV) var staticfiles .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
