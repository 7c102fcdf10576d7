"""Housekeeping: each duty is done again and again, whatever becomes of the others."""

import datetime as dt
import logging
import threading

import pytest
import redis
from django.db import DatabaseError, InterfaceError

from proxy_site import reasons
from proxy_site.housekeeping import ContradictedPeers, Housekeeping, forget_gossiped
from tests.support.bars import (
    MONDAY,
    NEXT_MONDAY,
    THURSDAY,
    a_store,
    bar,
    exchange_time,
    lead,
    let_time_pass,
    wait_until,
)
from tickers.universe import Universe
from tickers.verdict import Authority


def test_duties_are_done_again_and_again_until_it_stops() -> None:
    done: list[int] = []
    housekeeping = Housekeeping({"counting": lambda: done.append(1)}, turn=0.001)
    housekeeping.start()
    wait_until(lambda: len(done) > 3)
    housekeeping.stop(timeout=5)
    after = len(done)
    assert not any(thread.name == "housekeeping" for thread in threading.enumerate())
    assert len(done) == after


def test_what_was_counted_last_is_flushed_on_leaving() -> None:
    done = threading.Event()
    housekeeping = Housekeeping({"flushing": done.set}, turn=3_600)
    housekeeping.start()
    housekeeping.stop(timeout=5)
    assert done.is_set()


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("away"), DatabaseError("locked"), InterfaceError("closed")]
)
def test_a_duty_that_fails_keeps_no_other_from_being_done_and_is_said_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    works = threading.Event()

    def fail() -> None:
        if not works.is_set():
            raise error

    housekeeping = Housekeeping({"failing": fail, "counting": lambda: done.append(1)})
    with caplog.at_level(logging.INFO, logger="proxy_site.housekeeping"):
        housekeeping.run_once()
        housekeeping.run_once()
        assert housekeeping.failing == ["failing"]
        works.set()
        housekeeping.run_once()
    assert done == [1, 1, 1]
    assert housekeeping.failing == []
    assert caplog.messages == [
        f"failing fails, and is tried again ({reasons.of(error)})",
        "failing works again",
    ]


def test_a_duty_with_a_bug_is_said_once_with_its_traceback_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []

    def fail() -> None:
        raise KeyError("a bug")

    housekeeping = Housekeeping({"failing": fail, "counting": lambda: done.append(1)}, turn=0.001)
    housekeeping.start()
    wait_until(lambda: len(done) > 3)
    assert housekeeping.failing == ["failing"]
    housekeeping.stop(timeout=5)
    (record,) = caplog.records
    assert record.getMessage() == "failing fails by a fault of its own, and is tried again"
    assert "KeyError: 'a bug'" in caplog.text


def test_another_failure_of_a_failing_duty_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [
        redis.ConnectionError("away"),
        KeyError("a bug"),
        redis.ConnectionError("away"),
    ]

    def fail() -> None:
        raise errors.pop(0)

    housekeeping = Housekeeping({"failing": fail})
    for _ in range(3):
        housekeeping.run_once()
    assert caplog.messages == [
        "failing fails, and is tried again (the store can't be reached (away): see REDIS_URL)",
        "failing fails by a fault of its own, and is tried again",
    ]


class TestSymbolsThatOnlyPeersKnow:
    def test_leave_after_five_trading_days_without_a_bar(
        self, clean_server: redis.Redis, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = a_store(clean_server, max_symbols=30)
        invented = [bar(f"X{n}", MONDAY) for n in range(30)]
        assert store.merge(invented, Authority.INTERNAL).changed == 30
        universe = Universe.read()
        for day, left in ((NEXT_MONDAY, 30), (NEXT_MONDAY + dt.timedelta(days=1), 0)):
            store.clock = a_store(clean_server, at=exchange_time(day, 10)).clock
            with caplog.at_level(logging.INFO, logger="proxy_site.housekeeping"):
                forget_gossiped(store, universe, store.clock)
            assert len(store.symbols()) == left
        assert len(caplog.messages) == 30
        assert "forgot X0: only peers know it" in caplog.text

    def test_stay_while_they_are_listed_or_ours_or_spoken_of(
        self, clean_server: redis.Redis
    ) -> None:
        store = a_store(clean_server)
        store.merge([bar("VCB", MONDAY), bar("SAID", THURSDAY)], Authority.INTERNAL)
        store.merge([bar("OURS", MONDAY)], Authority.CORE, fence=lead(store))
        next_thursday = THURSDAY + dt.timedelta(days=7)
        store.clock = a_store(clean_server, at=exchange_time(next_thursday, 10)).clock
        forget_gossiped(store, Universe.read(), store.clock)
        assert store.symbols() == ["OURS", "SAID", "VCB"]


def test_a_peer_that_is_contradicted_is_said_once_for_each_time(
    clean_server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(clean_server)
    fence = lead(store)
    peers = ContradictedPeers(store)
    for times in (1, 2):
        store.merge([bar(volume=times * 1_000)], Authority.CORE, fence=fence)
        store.merge([bar(volume=times * 1_000 + 1)], Authority.INTERNAL, peer="198.51.100.7")
        let_time_pass(clean_server, seconds=61)
        store.complete_cycle(fence=fence)
        store.state()
        for _ in range(3):
            peers.tell()
    assert caplog.messages == [
        "peer 198.51.100.7 was contradicted 1 times in the last 24 h",
        "peer 198.51.100.7 was contradicted 2 times in the last 24 h",
    ]
