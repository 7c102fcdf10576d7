"""Fixtures of reputation: an SQL database that threads share as processes do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from pytest_django import DjangoDbBlocker


@pytest.fixture
def database_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Path]:
    """A database in a file, as a node has it.

    The in-memory one of the other tests locks whole tables between threads and waits for none.
    """
    path = tmp_path / "reputation.sqlite3"
    config = {**connections.settings["default"], "NAME": str(path)}
    monkeypatch.setitem(connections.settings, "default", config)
    in_memory = connections["default"]
    with django_db_blocker.unblock():
        connections["default"] = connections.create_connection("default")
        try:
            call_command("migrate", verbosity=0)
            yield path
        finally:
            connections["default"].close()
            connections["default"] = in_memory
