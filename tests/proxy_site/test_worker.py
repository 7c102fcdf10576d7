"""The worker's loop: leading, cycles that fail, pace, and what it tells."""

import contextlib
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from django.conf import settings

from proxy_site import worker as worker_module
from proxy_site.housekeeping import Housekeeping, withdraw_bars_of_banned
from proxy_site.ownership import NotOursError
from proxy_site.worker import Pace, Progress, Worker
from reputation.actors import change_by_operator
from reputation.models import Actor
from reputation.transitions import OperatorEvent
from tests.support.nodes import wait_for
from tickers.bar import Bar
from tickers.cycle_report import CycleReport
from tickers.follower import FollowError
from tickers.market_clock import MarketClock
from tickers.store.lease import Lease
from tickers.store.redis_client import connect
from tickers.store.store import FencedError, Store
from tickers.verdict import Authority

FRIDAY_11 = dt.datetime(2025, 8, 15, 4, tzinfo=dt.UTC)
FRIDAY_20 = dt.datetime(2025, 8, 15, 13, tzinfo=dt.UTC)
PACE = Pace(office_hours=0.01, otherwise=300, longest_pause=150)


@dataclass
class Script:
    """A source that does what the test says, cycle by cycle, and stops the worker at the end."""

    stop: threading.Event
    steps: list[Callable[[str], CycleReport]]
    fences: list[str] = field(default_factory=list)
    contacts: int = 0

    def cycle(self, fence: str, progress: Progress | None = None) -> CycleReport:
        self.fences.append(fence)
        step = self.steps.pop(0)
        if not self.steps:
            self.stop.set()
        return step(fence)

    def contact(self, fence: str) -> CycleReport:
        self.contacts += 1
        self.stop.set()
        return CycleReport().finish()


@dataclass
class Delivery:
    calls: list[str] = field(default_factory=list)

    def start(self, fence: str) -> None:
        self.calls.append("start")

    def stop(self, timeout: float) -> None:
        self.calls.append("stop")

    def status(self) -> dict[str, Any]:
        return {"internal": {"sent": 3}}


@dataclass
class Bench:
    store: Store
    delivery: Delivery
    stop: threading.Event

    def worker(
        self,
        *sources: Script,
        clock: MarketClock | None = None,
        pace: Pace = PACE,
        admit: Callable[[], None] = lambda: None,
        housekeeping: Housekeeping | None = None,
    ) -> Worker:
        return Worker(
            store=self.store,
            clock=clock or self.store.clock,
            sources=sources,
            delivery=self.delivery,
            housekeeping=housekeeping
            or Housekeeping(
                {
                    "ending what the banned have standing": lambda: withdraw_bars_of_banned(
                        self.store
                    )
                }
            ),
            pace=pace,
            mode="core",
            stop=self.stop,
            admit=admit,
        )

    def script(self, *steps: Callable[[str], CycleReport]) -> Script:
        return Script(self.stop, list(steps))


@pytest.fixture
def bench(clean_server: redis.Redis) -> Bench:
    store = Store(
        connect(settings.REDIS_URL, timeout=5),
        clock=MarketClock(frozen_at=FRIDAY_11),
        trust_window=300,
    )
    return Bench(store, Delivery(), threading.Event())


def quiet(fence: str) -> CycleReport:
    return CycleReport().finish()


def changed(fence: str) -> CycleReport:
    return CycleReport(bars_changed=2, bars_received=5, requests=1).finish()


def failing(error: Exception) -> Callable[[str], CycleReport]:
    def step(fence: str) -> CycleReport:
        raise error

    return step


def test_delivery_runs_while_it_leads(bench: Bench) -> None:
    source = bench.script(quiet, changed, quiet)
    bench.worker(source).run()
    assert len(set(source.fences)) == 1
    assert bench.delivery.calls == ["start", "stop"]


def test_it_tells_what_the_last_cycle_did(bench: Bench) -> None:
    bench.worker(bench.script(quiet, changed)).run()
    status = bench.store.status()
    assert status["iterations"] == 2
    assert status["cycle"]["bars_changed"] == 2
    assert status["cycle"]["requests"] == 1
    assert status["cycle"]["errors"] == []
    assert status["delivery"] == {"internal": {"sent": 3}}


@pytest.mark.parametrize(
    "error",
    [
        FollowError("the core network answered 500"),
        redis.ConnectionError("gone"),
        FencedError("late"),
    ],
)
def test_a_cycle_that_fails_is_told_and_the_next_one_comes(bench: Bench, error: Exception) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)
    seen: list[list[str]] = []

    def look(fence: str) -> CycleReport:
        seen.append(bench.store.status()["cycle"]["errors"])
        return quiet(fence)

    bench.worker(bench.script(failing(error), look), pace=pace).run()
    assert len(seen[0]) == 1
    assert bench.store.status()["cycle"]["errors"] == []


@pytest.mark.parametrize(
    "error",
    [ValueError("7 is no list"), RecursionError("too deep"), MemoryError(), KeyError("a" * 10**6)],
)
def test_whatever_is_raised_in_a_cycle_is_a_failed_cycle_and_one_traceback(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)
    seen: list[list[str]] = []

    def fail(fence: str) -> CycleReport:
        raise type(error)(*error.args)

    def look_and_fail(fence: str) -> CycleReport:
        seen.append(bench.store.status()["cycle"]["errors"])
        raise type(error)(*error.args)

    steps = [fail, fail, look_and_fail, look_and_fail, quiet]
    bench.worker(bench.script(*steps), pace=pace).run()
    assert [type(error).__name__ in line and len(line) < 400 for (line,) in seen] == [True, True]
    assert bench.store.status()["cycle"]["errors"] == []
    # Two kinds: raised in two functions.
    assert sum(record.exc_info is not None for record in caplog.records) == 2
    assert sum(f"{type(error).__name__} in" in record.message for record in caplog.records) == 4


def test_whatever_is_raised_in_a_contact_ends_nothing(bench: Bench) -> None:
    class Broken(Script):
        def contact(self, fence: str) -> CycleReport:
            super().contact(fence)
            raise ValueError("no answer of this kind is known")

    source = Broken(bench.stop, [quiet, quiet])
    bench.worker(source, pace=Pace(office_hours=300, otherwise=300, longest_pause=0.05)).run()
    assert source.contacts == 1


def test_a_source_that_raises_gives_way_to_the_next_address(bench: Bench) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)
    broken = Script(threading.Event(), [failing(ValueError("[[[[")), quiet])
    alive = bench.script(quiet)
    bench.worker(broken, alive, pace=pace).run()
    assert len(broken.fences) == len(alive.fences) == 1


def test_once_is_one_cycle_and_says_whether_it_went_well(bench: Bench) -> None:
    assert bench.worker(bench.script(changed, quiet)).run_once()
    assert not bench.worker(bench.script(failing(FollowError("no")), quiet)).run_once()


def test_the_next_address_is_tried_after_a_failure(bench: Bench) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)
    dead = Script(threading.Event(), [failing(FollowError("down")), quiet])
    alive = bench.script(quiet)
    bench.worker(dead, alive, pace=pace).run()
    assert len(dead.fences) == 1
    assert len(alive.fences) == 1


def test_a_dead_address_costs_a_live_one_nothing(bench: Bench) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=150)
    dead = Script(threading.Event(), [failing(FollowError("down"))] * 9)
    told: list[dict[str, Any]] = []

    def look(fence: str) -> CycleReport:
        told.append(bench.store.status())
        return changed(fence)

    alive = bench.script(changed, look, failing(FollowError("a blip")), look, look)
    started = time.monotonic()
    bench.worker(dead, alive, pace=pace).run()
    # The first cycle, and the one in which the live one failed too, may ask the dead one.
    assert len(dead.fences) <= 2
    assert told[0]["iterations"] == 1
    assert [status["interval"] for status in (told[0], told[-1])] == [0.01, 0.01]
    assert told[0]["addresses"] == {"count": 2, "failing": 1}
    assert told[0]["cycle"]["errors"] == ["down"]
    assert told[-1]["cycle"]["errors"] == []
    assert time.monotonic() - started < 10


def test_a_store_that_is_away_is_no_addresss_fault(bench: Bench) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)
    first = bench.script(
        failing(redis.ConnectionError("gone")), failing(FencedError("late")), quiet
    )
    second = Script(threading.Event(), [])
    bench.worker(first, second, pace=pace).run()
    assert len(first.fences) == 3


def test_a_contact_that_fails_is_made_with_the_next_address(bench: Bench) -> None:
    class Mute(Script):
        def contact(self, fence: str) -> CycleReport:
            raise FollowError("down")

    first, second = Mute(threading.Event(), [quiet]), bench.script(quiet, quiet)
    pace = Pace(office_hours=300, otherwise=300, longest_pause=0.05)
    bench.worker(first, second, pace=pace).run()
    assert second.contacts == 1


SLOW = Pace(office_hours=0.01, otherwise=0.01, longest_pause=0.02)


@pytest.mark.parametrize(
    "report",
    [
        CycleReport(bars_received=5, symbol_errors={"VCB": "its columns are empty"}),
        CycleReport(bars_received=5, missing={"VCB"}),
        CycleReport(bars_received=5, errors=["50 symbols weren't fetched: status 503"]),
    ],
)
def test_a_cycle_that_brought_something_keeps_the_pace(bench: Bench, report: CycleReport) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=150)
    bench.worker(bench.script(lambda _: report, lambda _: report), pace=pace).run()
    assert bench.store.status()["interval"] == 0.01


def test_cycles_that_bring_nothing_slow_down(bench: Bench) -> None:
    report = CycleReport(errors=["the upstream brought no usable bar"])
    bench.worker(bench.script(lambda _: report, lambda _: report), pace=SLOW).run()
    assert bench.store.status()["interval"] == SLOW.longest_pause


@pytest.mark.parametrize(("allowed", "told"), [(12.2, 12.2), (2.0, 5)])
def test_the_interval_that_is_told_is_what_the_budget_allows(
    bench: Bench, allowed: float, told: float
) -> None:
    pace = Pace(office_hours=5, otherwise=300, longest_pause=150)
    report = CycleReport(bars_received=5, least_interval=allowed)
    bench.worker(bench.script(lambda _: report), pace=pace).run_once()
    assert bench.store.status()["interval"] == told


def test_once_fails_only_with_an_error_of_the_cycle(bench: Bench) -> None:
    spoilt = CycleReport(bars_received=5, symbol_errors={"VCB": "its columns are empty"})
    assert bench.worker(bench.script(lambda _: spoilt, quiet)).run_once()
    status = bench.store.status()["cycle"]
    assert status["symbol_errors"] == {"VCB": "its columns are empty"}
    assert status["symbols_in_error"] == 1


@pytest.mark.parametrize(
    "report",
    [
        CycleReport(bars_received=5, errors=["1 series were refused (loses_days): VCB"]),
        CycleReport(bars_received=1, bars_dropped=1, errors=["a part isn't used"]),
    ],
)
def test_an_address_that_brought_something_has_not_failed(
    bench: Bench, report: CycleReport
) -> None:
    pace = Pace(office_hours=0.01, otherwise=0.01, longest_pause=150)
    first = bench.script(lambda _: report, lambda _: report)
    bench.worker(first, Script(threading.Event(), []), pace=pace).run()
    assert len(first.fences) == 2
    assert bench.store.status()["interval"] == 0.01


def test_nothing_is_fetched_while_another_worker_leads(bench: Bench) -> None:
    with Lease(bench.store) as other:
        assert other.try_acquire()
        source = bench.script(quiet)
        thread = threading.Thread(target=bench.worker(source).run)
        thread.start()
        bench.stop.wait(0.3)
        bench.stop.set()
        thread.join(5)
    assert not thread.is_alive()
    assert source.fences == []


def test_office_hours_that_begin_are_not_slept_through(bench: Bench) -> None:
    begun = time.monotonic()
    opens = dt.datetime(2025, 8, 15, 2, tzinfo=dt.UTC).timestamp()
    clock = MarketClock(wall_time=lambda: opens - 0.3 + time.monotonic() - begun)
    assert not clock.in_office_hours()
    source = bench.script(quiet, quiet)
    bench.worker(source, clock=clock).run()
    assert len(source.fences) == 2
    assert clock.in_office_hours()
    assert time.monotonic() - begun < 10


def test_a_cycle_that_is_due_comes_though_office_hours_end(bench: Bench) -> None:
    """It brings the day's last bars."""
    begun = time.monotonic()
    ends = dt.datetime(2025, 8, 15, 8, tzinfo=dt.UTC).timestamp()
    clock = MarketClock(wall_time=lambda: ends - 0.3 + time.monotonic() - begun)
    source = bench.script(quiet, quiet)
    pace = Pace(office_hours=1, otherwise=300, longest_pause=150)
    bench.worker(source, clock=clock, pace=pace).run()
    assert len(source.fences) == 2
    assert time.monotonic() - begun < 10


def test_a_long_pause_is_broken_by_contacts(bench: Bench) -> None:
    """Outside office hours the trust window must stay open all the same."""
    source = bench.script(quiet, quiet)
    pace = Pace(office_hours=300, otherwise=300, longest_pause=0.05)
    bench.worker(source, pace=pace).run()
    assert source.contacts == 1


def test_the_pace_follows_the_market_clock() -> None:
    assert PACE.interval(MarketClock(frozen_at=FRIDAY_11)) == 0.01
    assert PACE.interval(MarketClock(frozen_at=FRIDAY_20)) == 300


@pytest.mark.django_db(transaction=True)
def test_overlays_of_the_banned_end_with_the_cycle(bench: Bench) -> None:
    fence = bench.store.acquire_lease(60)
    assert fence
    day = dt.date(2025, 8, 15)
    trusted = Bar("VCB", day, 100, 101, 99, 100, 10)
    bench.store.merge([trusted], Authority.CORE, fence=fence)
    bench.store.release_lease(fence)
    for actor, volume in (("203.0.113.9", 20), ("203.0.113.10", 30)):
        public = Bar("VCB", day, 100, 101, 99, 100.5, volume)
        bench.store.lay([(public, "100")], actor=actor, late_after=0)
    banned = Actor.objects.create(address="203.0.113.10")
    change_by_operator(actor=banned, event=OperatorEvent.BAN, operator="ops")
    bench.worker(bench.script(quiet, quiet)).run_once()
    assert bench.store.overlays() == {}


class TestObstacles:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(worker_module, "TRY_AGAIN", 0.01)
        monkeypatch.setattr(worker_module, "LIFETIME", 0.05)
        caplog.set_level(logging.INFO, logger="proxy_site.worker")

    def test_another_leader_is_said_once(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = bench.worker(bench.script(quiet))
        tries = Countdown(bench.stop, 5)
        with Lease(bench.store) as other:
            other.try_acquire()
            bench.stop.wait = tries.wait  # type: ignore[method-assign]  # no event ends it
            worker.run()
        assert caplog.messages == [
            "standing by: another worker leads; this worker tries again every 0.01 s"
        ]

    def test_a_store_that_is_away_is_said_once_and_is_no_other_leader(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = bench.worker(bench.script(quiet))
        tries = Countdown(bench.stop, 5)
        bench.stop.wait = tries.wait  # type: ignore[method-assign]  # no event ends it
        with away(bench.store):
            worker.run()
        (said,) = caplog.messages
        assert said.startswith("the store can't be reached (")
        assert "see REDIS_URL" in said
        assert "leads" not in said

    def test_once_says_which_of_them_it_met(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Lease(bench.store) as other:
            other.try_acquire()
            assert not bench.worker(bench.script(quiet)).run_once()
        assert caplog.messages[-1] == (
            "another worker leads: stop it first, or leave the work to it"
        )
        with away(bench.store):
            assert not bench.worker(bench.script(quiet)).run_once()
        assert caplog.messages[-1].startswith("no cycle was run: the store can't be reached (")

    @pytest.mark.parametrize("run", ["run", "run_once"])
    def test_a_store_of_another_node_ends_the_worker(
        self, bench: Bench, caplog: pytest.LogCaptureFixture, run: str
    ) -> None:
        answers: list[Exception] = [redis.ConnectionError("away"), NotOursError("it is node-b's")]

        def admit() -> None:
            raise answers.pop(0)

        with Lease(bench.store) as other:
            other.try_acquire()
            worker = bench.worker(bench.script(quiet), admit=admit)
            assert not getattr(worker, run)()
        assert caplog.messages[-1] == "it is node-b's"


class Countdown:
    """Waits that take no time, of which the last one stops the worker."""

    def __init__(self, stop: threading.Event, waits: int) -> None:
        self._stop = stop
        self._left = waits

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        if not self._left:
            self._stop.set()
        return self._stop.is_set()


@contextlib.contextmanager
def away(store: Store) -> Iterator[None]:
    """Nobody listens where the store's server was."""
    pool = store.client.connection_pool
    there = pool.connection_kwargs["path"]
    for path in (f"{there}.gone", there):
        pool.connection_kwargs["path"] = path
        pool.disconnect()
        pool.reset()
        if path != there:
            yield


def test_a_duty_that_fails_and_works_again_is_told_before_the_next_cycle(bench: Bench) -> None:
    is_away = threading.Event()
    is_away.set()

    def duty() -> None:
        if is_away.is_set():
            raise redis.ConnectionError

    def failing() -> Any:
        return bench.store.status().get("housekeeping_failing")

    worker = bench.worker(
        bench.script(quiet, quiet),
        pace=Pace(office_hours=600, otherwise=600, longest_pause=600),
        housekeeping=Housekeeping({"a duty": duty}, turn=0.02),
    )
    running = threading.Thread(target=worker.run)
    running.start()
    try:
        wait_for(lambda: failing() == ["a duty"], "the failure to be told")
        is_away.clear()
        wait_for(lambda: failing() == [], "the recovery to be told")
    finally:
        bench.stop.set()
        running.join()
