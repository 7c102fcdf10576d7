"""The environment of the tests, set before Django reads its settings.

Nothing of the developer's own environment or .env reaches a test, and the server that the tests use
keeps its data in a temporary folder.
"""

import os
import shutil
import tempfile
from pathlib import Path

DATA_DIR = Path(tempfile.mkdtemp(prefix="aipriceaction-tests-"))

VARIABLES = {
    "ENV_FILE": os.devnull,
    "ENVIRONMENT": "development",
    "PRIMARY_TOKEN": "tests-primary-token",
    "SECONDARY_TOKEN": "tests-secondary-token",
    "DATA_DIR": str(DATA_DIR),
    "VCI_BASE_URL": "http://127.0.0.1:9/api/",
    "DEBUG_SYSTEM_TIME": "2025-08-15T10:00:00+07:00",
}
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "DATABASE_TEST_URL", "CI", "PYTHONPATH", "VIRTUAL_ENV")


def clean(**variables: str) -> dict[str, str]:
    """A process environment with nothing of the machine's own but ``KEPT``."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "ENV_FILE": os.devnull, **variables}


os.environ.update(VARIABLES)
for name in ("REDIS_URL", "CACHE_URL", "DATABASE_URL", "TICKERS", "CORE_NETWORK_URL"):
    os.environ.pop(name, None)
for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)

# Set by tests/reputation/test_postgres.py for the process that it starts.
ON_DATABASE = "TESTS_ON_DATABASE_URL"
if ON_DATABASE in os.environ:
    os.environ["DATABASE_URL"] = os.environ.pop(ON_DATABASE)


def pytest_unconfigure() -> None:
    shutil.rmtree(DATA_DIR, ignore_errors=True)
