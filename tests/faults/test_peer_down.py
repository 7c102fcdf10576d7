"""A peer that is down for a while: what it gets when it is back, and what it costs its sender.

A core node delivers to a real second node (behind a door that counts requests), to an existing-kind
peer that takes one bar a POST, and to a public peer that lets one bar through now and then.
"""

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.proxies import Door, OneBarEvery, Request, one_bar_a_post, pass_on_to
from tests.support.yard import Node, Yard
from tickers.store.store import ROOT
from tickers.universe import Universe

pytestmark = pytest.mark.slow

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(Universe.read().symbols[:16])
MOVING = UNIVERSE.symbols[:12]  # these change while the peers are down, the others don't
LOTS = 100_000  # shares: each round at the exchange adds so many

ROUNDS, MANY_ROUNDS = 9, 200
PEERS = 3  # of the core
SAMPLED = 3  # rounds at either end of an outage
BACK_WITHIN = 5.0  # seconds

SETTINGS = {
    "TICKERS": ",".join(UNIVERSE.symbols),
    "HISTORY_START": HISTORY_START.isoformat(),
    "DEBUG_SYSTEM_TIME": NOON.isoformat(),
}


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the sender holds: of its worker, threads, open files and sockets, connections to the
    store, resident bytes; of its store, the ledgers' entries and the bytes of all keys but those
    that grow for another reason."""

    threads: int
    files: int  # but for the connections to the store
    connections: int
    resident: int
    ledgered: int
    stored: int


# The change log is for readers, and the upstream's budget remembers a minute of requests.
GROWING = {f"{ROOT}:changes".encode(), b"{market}:upstream_requests"}


class Network:
    def __init__(
        self,
        exchange: SimulatorServer,
        core: Node,
        second: Node,
        *,
        door: Door,
        old: Door,
        crowd: Door,
    ) -> None:
        self.exchange = exchange
        self.core = core
        self.second = second
        self.door = door  # the second node's
        self.old = old  # takes one bar a POST
        self.crowd = crowd  # public: takes a bar now and then
        self.round = 0
        self.moved: list[float] = []  # when each round had reached the core's readers
        self._start = newest(core)

    def move(self, symbols: list[str]) -> None:
        """A round at the exchange: another bar for each of these symbols; the core fetches it."""
        self.round += 1
        self.exchange.set_bars({symbol: self._order(symbol) for symbol in symbols})
        wait_for(lambda: self.has_newest(self.core, symbols), "the round at the core", self.core)
        self.moved.append(time.monotonic())

    def has_newest(self, node: Node, symbols: list[str]) -> bool:
        bars = newest(node)
        return all(self.is_newest(bars[symbol]) for symbol in symbols) if bars else False

    def is_newest(self, bar: dict[str, Any]) -> bool:
        order = self._order(bar["symbol"])
        return all(bar[name] == value for name, value in order.items())

    def round_of(self, bar: dict[str, Any]) -> int:
        return int((bar["volume"] - self._start[bar["symbol"]]["volume"]) // LOTS)

    def _order(self, symbol: str) -> dict[str, Any]:
        bar = self._start[symbol]
        close = bar["high"] if self.round % 2 else bar["low"]
        return {"close": close, "volume": bar["volume"] + self.round * LOTS}

    def delivery(self, kind: str = "internal") -> dict[str, int]:
        return dict(self.core.get("/health").json()["worker"]["delivery"][kind])

    def wait_until_all_is_taken(self) -> None:
        told = self._iteration()
        # What was told first may be of a moment before now.
        wait_for(
            lambda: self._iteration() > told + 1 and self.delivery()["lacking"] == 0,
            "nothing to be lacking",
            self.core,
        )

    def _iteration(self) -> int:
        return int(self.core.get("/health").json()["iteration_count"])

    def go_down(self) -> None:
        self.door.stop()
        self.old.stop()
        self.crowd.stop()
        self.second.api.kill()
        self.second.worker.kill()
        self.door.forget()
        self.old.forget()

    def come_up(self) -> None:
        self.second.api.start()
        self.second.worker.start()
        wait_for(self.second.answers, "the second node to answer", self.second)
        self.door.start()
        self.old.start()
        self.crowd.start()

    def footprint(self) -> Footprint:
        worker, client = psutil.Process(self.core.worker.pid), self.core.store.client
        keys = set(client.keys("*")) - GROWING
        remotes = [connection.raddr for connection in worker.net_connections()]
        connections = sum(
            bool(remote) and remote.port == self.core.store.port for remote in remotes
        )
        return Footprint(
            threads=worker.num_threads(),
            files=worker.num_fds() - connections,
            connections=connections,
            resident=worker.memory_info().rss,
            ledgered=sum(client.hlen(key) for key in client.keys(f"{ROOT}:ledger:*")),
            stored=sum(client.memory_usage(key, samples=0) or 0 for key in keys),
        )


def newest(node: Node) -> dict[str, dict[str, Any]]:
    return {symbol: bars[-1] for symbol, bars in node.market().items()}


def a_market() -> SimulatedMarket:
    return SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=7, history_start=HISTORY_START
    )


def fill(node: Node) -> None:
    node.start()
    wait_for(lambda: len(newest(node)) == len(UNIVERSE), f"the market of {node.name}", node)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Door]:
    """A public peer of the existing kind; its pause is a fiftieth of the real one."""
    with Door(OneBarEvery(0.2)) as door:
        yield door


@pytest.fixture(scope="module")
def network(module_yard: Yard, crowd: Door) -> Iterator[Network]:
    """The peers have all of the core's market."""
    yard = module_yard
    with ExitStack() as stack:
        # The second node's own upstream is gone once it has loaded its history.
        with SimulatorServer(a_market()) as still:
            second = yard.node("second", yard.port(), VCI_BASE_URL=still.url, **SETTINGS)
            fill(second)
        exchange = stack.enter_context(SimulatorServer(a_market()))
        door = stack.enter_context(Door(pass_on_to(second.url)))
        old = stack.enter_context(Door(one_bar_a_post(422)))
        core = yard.node(
            "core",
            yard.port(),
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=f"{door.url},{old.url}",
            PUBLIC_PEER_URLS=crowd.url,
            **SETTINGS,
        )
        fill(core)
        network = Network(exchange, core, second, door=door, old=old, crowd=crowd)
        network.wait_until_all_is_taken()
        yield network


def test_a_public_peer_that_takes_a_bar_now_and_then_gets_every_symbol_in_turn(
    network: Network, crowd: Door
) -> None:
    """Always the newest bar of the symbol whose turn it is, and nobody's twice within a minute."""

    def all_came() -> bool:
        return len(crowd.taken) >= len(UNIVERSE)

    while not all_came():
        network.move(UNIVERSE.symbols)
    passed = [request for request in crowd.taken if request.bars]
    assert sorted(request.symbols[0] for request in passed[: len(UNIVERSE)]) == sorted(
        UNIVERSE.symbols
    )
    assert {request.path for request in passed} == {"/public/gossip"}
    assert {request.authorization for request in passed} == {""}
    for request in passed:
        # A round that the core's readers had 3 s before must not have been passed over.
        known = sum(at < request.at - 3 for at in network.moved)
        assert network.round_of(request.bars[0]) >= known
    assert network.delivery("public")["failing"] == 0


@dataclass(frozen=True, slots=True)
class Outage:
    before: list[Footprint]
    after: list[Footprint]
    second_back_after: float  # seconds
    old_back_after: float
    to_second: list[Request]
    to_old: list[Request]


def live_through(network: Network, rounds: int) -> Outage:
    network.wait_until_all_is_taken()
    network.go_down()
    network.move(MOVING)
    wait_for(lambda: network.delivery()["failing"] == 2, "both to be failing", network.core)
    samples = []
    for _ in range(rounds):
        network.move(MOVING)
        samples.append(network.footprint())
    network.come_up()
    came_up = time.monotonic()
    wait_for(
        lambda: network.has_newest(network.second, MOVING),
        "the newest bars at the second node",
        network.core,
        network.second,
    )
    second_back_after = time.monotonic() - came_up
    network.old.wait_for(lambda: len(network.old.taken) >= len(MOVING), "its bars, one by one")
    network.wait_until_all_is_taken()
    return Outage(
        before=samples[:SAMPLED],
        after=samples[-SAMPLED:],
        second_back_after=second_back_after,
        old_back_after=network.old.taken[-1].at - came_up,
        to_second=[request for request, _ in network.door.seen],
        to_old=[request for request, _ in network.old.seen],
    )


@pytest.fixture(scope="module")
def outage(network: Network) -> Outage:
    return live_through(network, ROUNDS)


def test_it_has_the_newest_bar_of_every_symbol_within_5_s_of_coming_back(outage: Outage) -> None:
    assert outage.second_back_after < BACK_WITHIN
    assert outage.old_back_after < BACK_WITHIN


def test_one_list_brings_all_that_changed_and_nothing_else(
    network: Network, outage: Outage
) -> None:
    (request,) = outage.to_second
    assert request.path == "/gossip"
    assert sorted(request.symbols) == sorted(MOVING)
    assert all(network.is_newest(bar) for bar in request.bars)


def test_a_peer_without_lists_gets_each_symbol_once(network: Network, outage: Outage) -> None:
    """It had learned before that lists are refused, and isn't offered one again."""
    assert not any(request.is_list for request in outage.to_old)
    assert sorted(request.symbols[0] for request in outage.to_old) == sorted(MOVING)
    assert all(network.is_newest(request.bars[0]) for request in outage.to_old)


def test_nothing_of_the_sender_grows_while_its_peers_are_down(outage: Outage) -> None:
    assert_nothing_grew(outage)


@pytest.mark.timeout(600)
def test_nothing_of_the_sender_grows_in_a_long_outage(network: Network) -> None:
    assert_nothing_grew(live_through(network, MANY_ROUNDS))


def assert_nothing_grew(outage: Outage) -> None:
    """The lightest moment at the end against the heaviest at the beginning: what comes and goes
    with each request is in both."""

    def heaviest(name: str) -> int:
        return int(max(getattr(footprint, name) for footprint in outage.before))

    def lightest(name: str) -> int:
        return int(min(getattr(footprint, name) for footprint in outage.after))

    # An exchange's thread waits for another exchange: there are as many as ever ran at one moment,
    # which are the fetch and one with each peer at most.
    assert lightest("threads") <= heaviest("threads") + PEERS
    assert lightest("files") <= heaviest("files")
    # The store's pool keeps a connection for each thread that ever asked at the same moment.
    assert lightest("connections") <= lightest("threads")
    assert lightest("ledgered") == heaviest("ledgered")
    # A bar kept for later, of each symbol and round, would take several times as much.
    assert lightest("stored") - heaviest("stored") < 4_000
    assert lightest("resident") - heaviest("resident") < 8_000_000
