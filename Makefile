# Everything a contributor runs; CI runs the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The Django plugin reads the settings, which refuse to load without tokens.
MYPY_ENV := ENV_FILE=/dev/null PRIMARY_TOKEN=type-checking-1 SECONDARY_TOKEN=type-checking-2

# Many tests wait for real servers, so two at a time take little more than half as long.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: install demo run test test-all lint format check bench lock clean

install: $(STAMP)

$(STAMP): requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $(STAMP)

demo: install
	@exec $(BIN)/python -m proxy_site.demo

run: install
	@exec $(BIN)/python manage.py run_node

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m ''

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MYPY_ENV) $(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test

# Needs wrk, and nginx for its column; half an hour. benchmarks/README.md has the tables.
bench: install
	@for name in reads gossip isolation flood cycle growth serving; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; \
	done

# Versions and hashes only: no addresses, so that any package index serves them.
lock: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra postgres \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-dev.lock

clean:
	rm -rf $(VENV) var staticfiles .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
