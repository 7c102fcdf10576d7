"""kill -9 at random moments of a trading day: at the end every node equals the exchange.

Two core nodes that gossip to each other, and a public node that follows both. What is killed is
started again, as systemd would. Seeded, so that a day that fails can be had again; the moments in
the processes' own lives are not.
"""

import datetime as dt
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from simulator.clock import AcceleratedClock
from simulator.market import Frame, SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.yard import Node, Yard
from tickers.universe import Universe

pytestmark = pytest.mark.slow

ZONE = dt.timezone(dt.timedelta(hours=7))
OPENING = dt.datetime(2025, 8, 15, 9, 30, tzinfo=ZONE)
CLOSING = dt.datetime(2025, 8, 15, 14, 45, tzinfo=ZONE)
HISTORY_START = dt.date(2025, 6, 2)
UNIVERSE = Universe.read()
TICKERS = UNIVERSE.symbols[:40]

VICTIMS = ("store", "worker", "gunicorn", "gunicorn's worker")


class DayClock:
    """A trading day in ``seconds``, until it is told to stand still."""

    def __init__(self, seconds: float) -> None:
        self._stood_still_at: float | None = None
        speed = (CLOSING - OPENING).total_seconds() / seconds
        self._clock = AcceleratedClock(OPENING, speed, until=CLOSING, monotonic=self._now)

    def __call__(self) -> dt.datetime:
        return self._clock()

    def stand_still(self) -> None:
        self._stood_still_at = time.monotonic()

    def _now(self) -> float:
        return self._stood_still_at or time.monotonic()


@dataclass
class Day:
    clock: DayClock
    exchange: SimulatorServer
    nodes: list[Node]
    began: float = field(default_factory=time.monotonic)
    kills: list[str] = field(default_factory=list)

    def truth(self) -> dict[str, list[dict[str, Any]]]:
        """Every bar that the exchange has, in the wire form of a node."""
        now = int(self.clock().timestamp())
        return {symbol: self._series(symbol, now) for symbol in TICKERS}

    def _series(self, symbol: str, now: int) -> list[dict[str, Any]]:
        return [
            {
                "symbol": symbol,
                "time": f"{dt.datetime.fromtimestamp(bar.time, dt.UTC):%Y-%m-%dT00:00:00Z}",
                "open": bar.open,
                "high": bar.high,
                "low": bar.low,
                "close": bar.close,
                "volume": bar.volume,
            }
            for bar in self.exchange.market.bars(symbol, frame=Frame.ONE_DAY, to=now)
        ]

    def kill(self, node: Node, what: str, throw: random.Random) -> None:
        """kill -9, and after a moment a new start, as systemd has it."""
        self.kills.append(f"{time.monotonic() - self.began:.2f} s: {what} of {node.name}")
        if what == "gunicorn's worker":
            node.api.kill_a_child(throw)
            return  # its master starts another
        victim = {"store": node.store, "worker": node.worker, "gunicorn": node.api}[what]
        victim.kill()
        pass_time(throw.uniform(0, 0.5))
        victim.start()

    def wait_until_all_equal(self, truth: dict[str, Any]) -> None:
        for node in self.nodes:
            wait_for(partial(serves, node, truth), f"the truth at {node.name}", node)

    def check_that_nobody_ended_by_itself(self) -> None:
        for node in self.nodes:
            for process in (node.store, node.api, node.worker):
                assert process.lives, f"{process.name} has ended by itself\n{process.log()[-3000:]}"


def serves(node: Node, truth: dict[str, Any]) -> bool:
    return node.market() == truth


def pass_time(seconds: float) -> None:
    """Nothing is waited for: the moment is what the seed has drawn."""
    threading.Event().wait(seconds)


@pytest.fixture
def day(yard: Yard, request: pytest.FixtureRequest) -> Iterator[Day]:
    clock = DayClock(seconds=request.param)
    market = SimulatedMarket(
        UNIVERSE.only(TICKERS), clock=clock, seed=11, history_start=HISTORY_START
    )
    ports = [yard.port() for _ in range(3)]
    first, second = (f"http://127.0.0.1:{port}" for port in ports[:2])
    common = {
        "DEBUG_SYSTEM_TIME": OPENING.isoformat(),
        "HISTORY_START": HISTORY_START.isoformat(),
        "TICKERS": ",".join(TICKERS),
    }
    with SimulatorServer(market) as exchange:
        core = {**common, "VCI_BASE_URL": exchange.url}
        nodes = [
            yard.node("first", ports[0], INTERNAL_PEER_URLS=second, **core),
            yard.node("second", ports[1], INTERNAL_PEER_URLS=first, **core),
            yard.node("public", ports[2], CORE_NETWORK_URL=f"{first},{second}", **common),
        ]
        for node in nodes:
            node.start()
        yield Day(clock, exchange, nodes)


def deck(day: Day, throw: random.Random) -> Iterator[tuple[Node, str]]:
    """Every process of every node in a random order, again and again; all kinds in each four."""
    while True:
        hands = {what: throw.sample(day.nodes, len(day.nodes)) for what in VICTIMS}
        for turn in range(len(day.nodes)):
            for what in throw.sample(VICTIMS, len(VICTIMS)):
                yield hands[what][turn], what


def live_through(day: Day, *, kills: int, seed: int) -> None:
    throw = random.Random(seed)
    victims = deck(day, throw)
    adjusted = throw.sample(TICKERS, 6)
    for node in day.nodes:
        wait_for(node.answers, f"{node.name} to answer", node)
    opened = day.truth()
    for number in range(kills):
        pass_time(throw.uniform(0.05, 1.2))
        if number == kills // 3:
            # Between kills, the upstream adjusts some histories for dividends.
            day.exchange.adjust(dict.fromkeys(adjusted[:3], 0.9))
        day.check_that_nobody_ended_by_itself()
        day.kill(*next(victims), throw)
    # No gossip brings a history: every node must find this one by itself.
    day.exchange.adjust(dict.fromkeys(adjusted[3:], 0.8))
    before_closing = day.clock()
    day.clock.stand_still()
    assert before_closing < CLOSING, "the day was over before the kills were: make it longer"
    truth = day.truth()
    assert sum(truth[symbol] != opened[symbol] for symbol in TICKERS) > len(TICKERS) // 2
    day.wait_until_all_equal(truth)
    day.check_that_nobody_ended_by_itself()


def survive(day: Day, *, kills: int, seed: int) -> None:
    try:
        live_through(day, kills=kills, seed=seed)
    except Exception as error:
        listed = "\n".join(day.kills)
        raise AssertionError(f"{error}\nseed {seed}, kills:\n{listed}") from error
    assert len(day.kills) == kills


@pytest.mark.parametrize("day", [120], indirect=True)
def test_a_day_of_6_kills_ends_with_the_truth_at_every_node(day: Day) -> None:
    survive(day, kills=6, seed=12)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("day", [300], indirect=True)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_day_of_36_kills_ends_with_the_truth_at_every_node(day: Day, seed: int) -> None:
    survive(day, kills=36, seed=seed)
