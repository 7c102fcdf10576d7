"""The bulkhead before SQL: who is let in, who is told to come back, and when."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import InterfaceError, OperationalError

from reputation import database_bulkhead
from reputation.database_bulkhead import BulkheadFullError, DatabaseBulkhead


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_bulkhead, "PATIENCE", 0.2)
    monkeypatch.setattr(database_bulkhead, "SLOW", 0.1)
    monkeypatch.setattr(database_bulkhead, "PAUSE", 0.3)


@contextmanager
def occupied(way_in: DatabaseBulkhead, threads: int) -> Iterator[threading.Event]:
    """Threads that stay inside until the event, or the end of the block."""
    inside, leave = threading.Barrier(threads + 1), threading.Event()

    def stay() -> None:
        with way_in.inside():
            inside.wait(5)
            leave.wait(5)

    with ThreadPoolExecutor(threads) as pool:
        staying: list[Future[None]] = [pool.submit(stay) for _ in range(threads)]
        inside.wait(5)
        try:
            yield leave
        finally:
            leave.set()
        for stayed in staying:
            stayed.result()


def raise_after(seconds: float, error: Exception) -> None:
    time.sleep(seconds)
    raise error


def fail(way_in: DatabaseBulkhead, *, after: float, error: Exception | None = None) -> None:
    error = error or OperationalError("timeout expired")
    with pytest.raises(type(error)), way_in.inside():
        raise_after(after, error)


def refuses(way_in: DatabaseBulkhead) -> float:
    """Seconds after which it did."""
    begun = time.monotonic()
    with pytest.raises(BulkheadFullError), way_in.inside():
        pass
    return time.monotonic() - begun


class TestRoom:
    def test_is_for_so_many(self) -> None:
        way_in = DatabaseBulkhead(most=2)
        with occupied(way_in, 1), way_in.inside():
            pass
        with occupied(way_in, 2):
            refuses(way_in)
        with way_in.inside():
            pass

    def test_is_waited_for_a_moment(self) -> None:
        way_in = DatabaseBulkhead(most=1)
        with occupied(way_in, 1) as leave:
            threading.Timer(0.02, leave.set).start()
            with way_in.inside():
                pass
        with occupied(way_in, 1):
            assert refuses(way_in) >= database_bulkhead.PATIENCE

    def test_isnt_waited_for_behind_one_that_may_hang(self) -> None:
        way_in = DatabaseBulkhead(most=2)
        with occupied(way_in, 2):
            time.sleep(database_bulkhead.SLOW + 0.05)
            assert refuses(way_in) < database_bulkhead.PATIENCE / 2

    def test_is_free_again_whatever_was_raised(self) -> None:
        way_in = DatabaseBulkhead(most=1)
        for error in (ValueError("a bug"), OperationalError("refused"), KeyboardInterrupt()):
            with pytest.raises(type(error)), way_in.inside():
                raise error
        with way_in.inside():
            pass


class TestSlowFailure:
    @pytest.mark.parametrize("error", [OperationalError("timeout"), InterfaceError("closed")])
    def test_closes_for_a_while(self, error: Exception) -> None:
        way_in = DatabaseBulkhead(most=2)
        fail(way_in, after=0.15, error=error)
        assert refuses(way_in) < database_bulkhead.PATIENCE / 2
        time.sleep(database_bulkhead.PAUSE)
        with way_in.inside():
            pass

    def test_then_lets_one_try_until_one_succeeds(self) -> None:
        way_in = DatabaseBulkhead(most=2)
        fail(way_in, after=0.15)
        time.sleep(database_bulkhead.PAUSE)
        with occupied(way_in, 1):
            assert refuses(way_in) < database_bulkhead.PATIENCE / 2
        with occupied(way_in, 2):
            pass

    def test_of_that_one_closes_again(self) -> None:
        way_in = DatabaseBulkhead(most=2)
        fail(way_in, after=0.15)
        time.sleep(database_bulkhead.PAUSE)
        fail(way_in, after=0.15)
        refuses(way_in)

    def test_is_said_once_and_so_is_its_end(self, caplog: pytest.LogCaptureFixture) -> None:
        way_in = DatabaseBulkhead(most=2)
        with caplog.at_level(logging.INFO, logger="reputation.database_bulkhead"):
            for _ in range(2):
                fail(way_in, after=0.15)
                for _ in range(20):
                    refuses(way_in)
                time.sleep(database_bulkhead.PAUSE)
            for _ in range(2):
                with way_in.inside():
                    pass
        assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_fast_failure_changes_nothing() -> None:
    way_in = DatabaseBulkhead(most=2)
    for _ in range(20):
        fail(way_in, after=0.0)
    with occupied(way_in, 2):
        pass


def test_what_isnt_the_databases_failure_closes_nothing() -> None:
    way_in = DatabaseBulkhead(most=2)
    with pytest.raises(TimeoutError), way_in.inside():
        raise_after(0.15, TimeoutError())
    with occupied(way_in, 2):
        pass
