"""Housekeeping: each duty is done again and again, whatever becomes of the others."""

import logging
import threading

import pytest
import redis
from django.db import DatabaseError

from proxy_site.housekeeping import Housekeeping
from tests.tickers.conftest import wait_until


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


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), DatabaseError("locked")])
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
        f"failing fails, and is tried again ({error})",
        "failing works again",
    ]
