"""An exchange ends in time, whatever its work does, and leaves nothing behind."""

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tickers import bounded_exchange
from tickers.bounded_exchange import Exchange, StoppedError, TimedOutError, show


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_outcome_is_what_the_work_returns_or_raises() -> None:
    def fail(_: Exchange[int]) -> int:
        raise LookupError

    assert Exchange(lambda _: 5).wait(5) == 5
    with pytest.raises(LookupError):
        Exchange(fail).wait(5)


def test_one_thread_works_on_exchanges_that_follow_each_other() -> None:
    names = {Exchange(lambda _: threading.get_ident()).wait(5) for _ in range(20)}
    assert len(names) == 1


def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_exchange._Thread, "IDLE", 0.01)
    thread = Exchange(lambda _: threading.current_thread()).wait(5)
    thread.join(10)
    assert not thread.is_alive()
    assert Exchange(lambda _: 5).wait(5) == 5


def test_a_thread_that_nobody_waits_for_any_more_ends_when_its_work_does() -> None:
    """As in a name service that doesn't answer: nothing can be shut down there."""
    release = threading.Event()
    working: list[threading.Thread] = []

    def work(_: Exchange[None]) -> None:
        working.append(threading.current_thread())
        release.wait(10)

    with pytest.raises(TimedOutError):
        Exchange(work).wait(0.05)
    release.set()
    working[0].join(5)
    assert not working[0].is_alive()


@pytest.mark.parametrize("way", ["cut", "time", "stop"])
def test_a_read_ends_along_with_the_exchange(way: str) -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def work(_: Exchange[bytes]) -> bytes:
        show(ours)
        try:
            return ours.recv(1)
        finally:
            ended.set()

    with ours, theirs:
        exchange = Exchange(work)
        until(lambda: exchange._handle is not None)
        stop = threading.Event()
        if way == "cut":
            exchange.cut()
        elif way == "stop":
            stop.set()
        with pytest.raises(TimedOutError if way == "time" else StoppedError):
            exchange.wait(0.1 if way == "time" else 10, stop=stop)
        assert ended.wait(5)
        until(lambda: exchange._handle is None)


def test_a_socket_that_is_shown_too_late_is_closed() -> None:
    ours, theirs = socket.socketpair()
    go = threading.Event()
    outcome: list[BaseException] = []

    def work(_: Exchange[None]) -> None:
        go.wait(5)
        try:
            show(ours)
        except ConnectionAbortedError as error:
            outcome.append(error)

    with theirs:
        exchange = Exchange(work)
        exchange.cut()
        go.set()
        until(lambda: outcome)
        assert ours.fileno() == -1


def test_an_outcome_settled_early_counts_when_the_rest_takes_too_long() -> None:
    release = threading.Event()

    def work(exchange: Exchange[str]) -> str:
        exchange.settle("early")
        release.wait(10)
        return "late"

    assert Exchange(work).wait(0.2) == "early"
    release.set()


def test_nothing_is_settled_after_the_time() -> None:
    """The end of a connection that was cut looks like the end of its headers."""
    release = threading.Event()
    refused = threading.Event()

    def work(exchange: Exchange[str]) -> str:
        release.wait(10)
        try:
            exchange.settle("half an answer")
        except ConnectionAbortedError:
            refused.set()
        return "late"

    exchange = Exchange(work)
    with pytest.raises(TimedOutError):
        exchange.wait(0.05)
    release.set()
    assert refused.wait(5)
    assert exchange.settled is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes don't fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_doesnt_count_on_its_parents_threads() -> None:
    Exchange(lambda _: 5).wait(5)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if Exchange(lambda _: 7).wait(3) == 7 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
