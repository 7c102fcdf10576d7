"""Fixtures of these tests; what they are made of is in tests/support/clock.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from tests.support.clock import Clock


@pytest.fixture
def shared_database(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[None]:
    """A database for threads with connections of their own, as a node's processes have them.

    SQLite's is in a file, as a node has it: the in-memory one of the other tests locks whole
    tables between threads and waits for none.
    """
    of_all_tests = connections["default"]
    with django_db_blocker.unblock():
        if of_all_tests.vendor == "sqlite":
            config = {**connections.settings["default"], "NAME": str(tmp_path / "shared.sqlite3")}
            monkeypatch.setitem(connections.settings, "default", config)
            connections["default"] = connections.create_connection("default")
            call_command("migrate", verbosity=0)
        try:
            yield
        finally:
            if of_all_tests.vendor == "sqlite":
                connections["default"].close()
                connections["default"] = of_all_tests
            else:
                call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock
