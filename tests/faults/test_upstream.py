"""Every fault of the upstream: the worker goes on, counts it, says so, and stores nothing bad.

The worker, its client, the store and the exchange's server are real and run in this process, with
short timeouts; the slow form runs the worker's own process with the timeouts of production.
"""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import redis
from django.test import Client

from proxy_site.housekeeping import Housekeeping
from proxy_site.worker import Pace, Worker
from simulator.clock import AcceleratedClock
from simulator.controls import FOREVER
from simulator.faults import BodyFault
from simulator.market import Frame, SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.yard import Node, Yard
from tickers import wiring
from tickers.bar import epoch_of
from tickers.core_fetch import CoreFetch
from tickers.universe import Universe
from tickers.vci.client import VciClient
from tickers.vci.request_budget import RequestBudget

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(Universe.read().symbols[:6])
BATCH = 3
# The symbols that faults of columns spoil are the first of each request.
SPOILED = UNIVERSE.symbols[::BATCH]
WINDOW = 61.0  # seconds
LIMIT, TIGHT_LIMIT = 1_800, 240  # requests in a window
LOT = 1_000


@dataclass(frozen=True, slots=True)
class Expected:
    """Which counter a fault moves, and what the log says of it."""

    counter: str
    kind: str
    line: str
    spoils_all: bool = True


def status(code: int) -> Expected:
    return Expected("errors", f"status {code}", f"the upstream answered {code}")


def dropped(reason: str) -> Expected:
    return Expected(
        "dropped", reason, f"parts of an answer are dropped, the rest is used: {reason}", False
    )


STATUSES: dict[int | BodyFault, Expected] = {code: status(code) for code in (403, 429, 500, 503)}
BODIES: dict[int | BodyFault, Expected] = {
    BodyFault.HTML: Expected("errors", "html", "200 with HTML instead of JSON"),
    BodyFault.NOT_JSON: Expected("errors", "not json", "200 with broken JSON"),
    BodyFault.TRUNCATED: Expected("errors", "truncated", "the upstream broke its answer off"),
    BodyFault.EMPTY: Expected("errors", "nothing answered", "none of the symbols asked for"),
    BodyFault.OBJECT: Expected("errors", "wrong answer", "an object instead of a list"),
    BodyFault.NULL_VALUES: dropped("close is null"),
    BodyFault.NAN: dropped("close is not finite"),
    BodyFault.MISMATCH: Expected("errors", "wrong symbol", "column c has", False),
    BodyFault.MISSING_KEY: Expected("errors", "wrong symbol", "column v is missing", False),
    BodyFault.BAD_TIME: dropped("time must be epoch seconds"),
    BodyFault.EMPTY_COLUMNS: Expected(
        "errors", "empty symbol", "symbols in error, among them", False
    ),
    BodyFault.TEXTS: Expected("errors", "wrong symbol", "usable: open is not a number"),
    BodyFault.MILLISECONDS: Expected("errors", "wrong symbol", "usable: time must be epoch"),
    BodyFault.NULLS: Expected("errors", "wrong symbol", "usable: open is null"),
    BodyFault.SLOW_BODY: Expected("errors", "timeout", "answer wasn't complete after"),
    BodyFault.RESET: Expected("errors", "unreachable", "the upstream gave no answer"),
}


def an_exchange() -> SimulatorServer:
    return SimulatorServer(
        SimulatedMarket(
            UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=3, history_start=HISTORY_START
        )
    )


class NoPeers:
    """A node without peers delivers nothing."""

    def start(self, fence: str) -> None: ...

    def wake(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def status(self) -> dict[str, Any]:
        return {}


class Bench:
    """A worker at work, its exchange, and what a client of its node sees."""

    def __init__(self, exchange: SimulatorServer, *, limit: int) -> None:
        self.exchange = exchange
        self._stop = threading.Event()
        self._client = Client()
        self._volumes = {symbol: bars[-1][5] for symbol, bars in self.truth().items()}
        self._moves = 0
        store, clock = wiring.store(), wiring.market_clock()
        client = VciClient(
            base_url=exchange.url,
            budget=RequestBudget(store.client, limit=limit, window=WINDOW),
            batch_size=BATCH,
            stop=self._stop,
            read_timeout=2,
            total_timeout=0.3,
            max_attempts=2,
            backoff=0.02,
        )
        source = CoreFetch(
            store=store,
            clock=clock,
            client=client,
            symbols=UNIVERSE.symbols,
            history_start=HISTORY_START,
            stop=self._stop,
        )
        self._worker = threading.Thread(
            target=Worker(
                store=store,
                clock=clock,
                sources=[source],
                delivery=NoPeers(),
                housekeeping=Housekeeping({}),
                # The longest pause bounds the backoff after cycles that failed.
                pace=Pace(office_hours=0.05, otherwise=0.05, longest_pause=0.2),
                mode="core",
                stop=self._stop,
            ).run
        )
        self._worker.start()

    def close(self) -> None:
        self._stop.set()
        self._worker.join()

    def move(self) -> None:
        """Another bar at the exchange, for each symbol."""
        self._moves += 1
        self.exchange.set_bars(
            {
                symbol: {"close": bars[-1][2], "volume": self._volumes[symbol] + self._moves * LOT}
                for symbol, bars in self.truth().items()
            }
        )

    def truth(self) -> dict[str, list[tuple[Any, ...]]]:
        return truth_of(self.exchange)

    def served(self) -> dict[str, list[tuple[Any, ...]]]:
        answer = self._client.get("/tickers")
        market = answer.json() if answer.status_code == 200 else {}
        return {symbol: [as_tuple(bar) for bar in bars] for symbol, bars in market.items()}

    def is_right(self) -> bool:
        return self.served() == self.truth()

    def health(self) -> dict[str, Any]:
        return dict(self._client.get("/health").json())

    def count(self, expected: Expected) -> int:
        return int(self.health()["worker"]["upstream"][expected.counter].get(expected.kind, 0))

    def iterations(self) -> int:
        return int(self.health()["iteration_count"])


def truth_of(exchange: SimulatorServer) -> dict[str, list[tuple[Any, ...]]]:
    return {
        symbol: [tuple(bar) for bar in exchange.market.bars(symbol, frame=Frame.ONE_DAY, to=2**40)]
        for symbol in UNIVERSE.symbols
    }


def as_tuple(bar: dict[str, Any]) -> tuple[Any, ...]:
    day = dt.datetime.fromisoformat(bar["time"]).date()
    prices = (bar["open"], bar["high"], bar["low"], bar["close"])
    return epoch_of(day), *prices, bar["volume"]


@pytest.fixture
def exchange() -> Iterator[SimulatorServer]:
    with an_exchange() as server:
        yield server


@pytest.fixture
def bench(
    exchange: SimulatorServer,
    clean_server: redis.Redis,
    transactional_db: None,
    request: pytest.FixtureRequest,
) -> Iterator[Bench]:
    """Its node has the whole market."""
    for part in (wiring.market_clock, wiring.store, wiring.snapshots):
        part.cache_clear()
    bench = Bench(exchange, limit=getattr(request, "param", LIMIT))
    try:
        wait_for(bench.is_right, "the market")
        wait_for(
            lambda: bench.health()["worker"].get("cycle", {}).get("errors") == [], "a whole cycle"
        )
        yield bench
    finally:
        bench.close()


def live_through(bench: Bench, expected: Expected, caplog: pytest.LogCaptureFixture) -> None:
    """The fault is on already; it ends here."""
    before, iterations = bench.served(), bench.iterations()
    bench.move()
    wait_for(lambda: bench.iterations() > iterations + 1, "cycles to go on")
    wait_for(lambda: bench.count(expected) >= 2, f"the counter {expected.kind}")
    assert expected.line in caplog.text
    truth = bench.truth()
    if expected.spoils_all:
        assert bench.served() == before
        problems = bench.health()["problems"]
        assert any(expected.line in problem for problem in problems), problems
    else:
        sound = [symbol for symbol in UNIVERSE.symbols if symbol not in SPOILED]
        wait_for(
            lambda: all(bench.served()[symbol] == truth[symbol] for symbol in sound),
            "the bars of the other symbols",
        )
        served = bench.served()
        assert {symbol: served[symbol] for symbol in SPOILED} == {
            symbol: before[symbol] for symbol in SPOILED
        }
    bench.exchange.clear_fault()
    wait_for(bench.is_right, "the market to be right again")
    wait_for(lambda: bench.health()["worker"]["cycle"]["errors"] == [], "a cycle without errors")


@contextmanager
def within_the_budget(exchange: SimulatorServer, *, limit: int) -> Iterator[None]:
    """As the exchange counts: at most ``limit`` requests in a minute, evenly paced."""
    pace = WINDOW / limit
    asked, started = exchange.counters["requests"], time.monotonic()
    yield
    requests = exchange.counters["requests"] - asked
    # The first may have been granted before the count began.
    assert requests <= (time.monotonic() - started) / pace + 2
    assert exchange.counters["peak_requests_per_minute"] <= limit


@pytest.mark.parametrize("code", STATUSES)
def test_a_status_is_counted_and_told_and_the_market_stays_right(
    code: int, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with within_the_budget(bench.exchange, limit=LIMIT):
        bench.exchange.fail_with_status(code)
        live_through(bench, STATUSES[code], caplog)


@pytest.mark.parametrize("body", BODIES)
def test_a_bad_body_is_counted_and_told_and_the_market_stays_right(
    body: BodyFault, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with within_the_budget(bench.exchange, limit=LIMIT):
        bench.exchange.fail_with_body(body)
        live_through(bench, BODIES[body], caplog)


def test_every_fault_has_a_test() -> None:
    assert set(BODIES) == set(BodyFault)


def test_a_fault_that_passes_costs_a_retry_and_nothing_else(bench: Bench) -> None:
    told = bench.health()["worker"]["upstream"]
    bench.exchange.fail_with_status(503, times=1)
    bench.move()
    wait_for(bench.is_right, "the market")
    wait_for(
        lambda: bench.health()["worker"]["upstream"]["retries"] == told["retries"] + 1, "a retry"
    )
    assert bench.health()["worker"]["upstream"]["errors"]["status 503"] == 1
    assert bench.health()["worker"]["cycle"]["errors"] == []


@pytest.mark.parametrize("bench", [TIGHT_LIMIT], indirect=True)
@pytest.mark.parametrize("code", [429, 503])
def test_retries_take_from_the_budget_too(bench: Bench, code: int) -> None:
    """Left to the backoff alone, they would ask several times as often."""
    with within_the_budget(bench.exchange, limit=TIGHT_LIMIT):
        bench.exchange.fail_with_status(code)
        asked = bench.exchange.counters["requests"]
        wait_for(lambda: bench.exchange.counters["requests"] >= asked + 8, "requests")
    bench.exchange.clear_fault()
    wait_for(bench.is_right, "the market")


def test_an_upstream_that_was_empty_for_long_is_asked_for_everything_again(bench: Bench) -> None:
    bench.exchange.fail_with_body(BodyFault.EMPTY)
    iterations = bench.iterations()
    wait_for(lambda: bench.iterations() > iterations + 12, "cycles that bring nothing")
    bench.move()
    bench.exchange.clear_fault()
    wait_for(bench.is_right, "the market to be right again", seconds=10)


# --- The worker's own process ---------------------------------------------------------------------

NODE_LIMIT = 60


def a_node(yard: Yard, exchange: SimulatorServer) -> Node:
    port, store = yard.port(), yard.store("core-store")
    environment = {
        **yard.environment("core"),
        "PORT": str(port),
        "REDIS_URL": store.url,
        "VCI_BASE_URL": exchange.url,
        "VCI_RATE_LIMIT": str(NODE_LIMIT),
        "VCI_BATCH_SIZE": str(BATCH),
        "TICKERS": ",".join(UNIVERSE.symbols),
        "HISTORY_START": HISTORY_START.isoformat(),
        "DEBUG_SYSTEM_TIME": NOON.isoformat(),
        "TRUST_WINDOW": "10",  # half of it bounds the pause after cycles that failed
    }
    api, worker = yard.api("core-api", environment), yard.worker("core-worker", environment)
    return Node("core", store, api, worker, port)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_process_lives_through_all_of_them(yard: Yard, exchange: SimulatorServer) -> None:
    node = a_node(yard, exchange)

    def served() -> dict[str, list[tuple[Any, ...]]]:
        return {symbol: [as_tuple(bar) for bar in bars] for symbol, bars in node.market().items()}

    def count(expected: Expected) -> int:
        upstream = node.get("/health").json()["worker"].get("upstream", {})
        return int(upstream.get(expected.counter, {}).get(expected.kind, 0))

    def is_told(expected: Expected, before: int) -> bool:
        return count(expected) > before

    node.start()
    wait_for(lambda: served() == truth_of(exchange), "the market", node)
    volume = 10**8
    with within_the_budget(exchange, limit=NODE_LIMIT):
        for fault, expected in {**STATUSES, **BODIES}.items():
            told = count(expected)
            if isinstance(fault, BodyFault):
                # Each slow body costs the worker half a minute.
                exchange.fail_with_body(fault, times=1 if fault is BodyFault.SLOW_BODY else FOREVER)
            else:
                exchange.fail_with_status(fault)
            wait_for(partial(is_told, expected, told), f"a count of {fault}", node, seconds=300)
            assert expected.line in node.worker.log()
            volume += LOT
            exchange.set_bars({symbol: {"volume": volume} for symbol in UNIVERSE.symbols})
            exchange.clear_fault()
            wait_for(
                lambda: served() == truth_of(exchange),
                f"the market to be right after {fault}",
                node,
                seconds=60,
            )
    assert exchange.counters["peak_requests_per_minute"] > NODE_LIMIT / 2
    assert node.worker.lives
