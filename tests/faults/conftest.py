"""Fixtures of these tests; what they are made of is in tests/support/yard.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import clean
from tests.support.nodes import run
from tests.support.yard import PRIMARY, SECONDARY, Yard


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reputation database with its tables."""
    folder = tmp_path_factory.mktemp("migrated")
    environment = clean(
        PRIMARY_TOKEN=PRIMARY,
        SECONDARY_TOKEN=SECONDARY,
        DATA_DIR=str(folder),
        REDIS_URL="redis://127.0.0.1:9/0",
    )
    run(environment, "manage.py", "migrate", "--verbosity=0")
    return folder / "reputation.sqlite3"


@pytest.fixture
def yard(tmp_path: Path, migrated: Path) -> Iterator[Yard]:
    with Yard(tmp_path, migrated) as yard:
        yield yard


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard"), migrated) as yard:
        yield yard
