"""Fixtures of reputation: an SQL database that threads share as processes do, and a clock."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.utils import timezone
from pytest_django import DjangoDbBlocker


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


def at_once(call: Callable[[], Any], *, threads: int) -> list[Any]:
    """The answers of ``call`` from threads that start together, each with its own connections."""
    start = threading.Barrier(threads)

    def run() -> Any:
        start.wait()
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(threads)]]


class Clock:
    """The wall clock of reputation, which goes on from wherever it is moved to."""

    def __init__(self) -> None:
        self._now = timezone.now
        self._moved = dt.timedelta(0)

    def now(self) -> dt.datetime:
        return self._now() + self._moved

    def move(self, *, hours: float) -> None:
        self._moved += dt.timedelta(hours=hours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock
