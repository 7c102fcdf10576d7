"""The tests of reputation once more, in a process of their own, on PostgreSQL."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import postgres
from tests.support.environment import ON_DATABASE, clean

pytestmark = pytest.mark.slow

HERE = Path(__file__)
ROOT = HERE.parents[2]


@pytest.mark.skipif(not postgres.find().url, reason=f"no PostgreSQL: {postgres.find().what}")
@pytest.mark.timeout(240)
def test_reputation_is_kept_by_postgresql_as_by_sqlite() -> None:
    server = postgres.find().url
    # Django makes test_NAME and drops it at the end; the process id keeps two runs apart.
    name = f"aipriceaction_{os.getpid()}"
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", str(HERE.parent), f"--ignore={HERE}"),
                *("-p", "no:cacheprovider", "--timeout=60"),
            ],
            cwd=ROOT,
            env=clean(**{ON_DATABASE: urlsplit(server)._replace(path=f"/{name}").geturl()}),
            capture_output=True,
            text=True,
            check=False,
            timeout=220,
        )
    finally:
        postgres.drop(server, f"test_{name}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "reputation is tested on PostgreSQL only" in said
    assert "skipped" not in said.splitlines()[-1]
