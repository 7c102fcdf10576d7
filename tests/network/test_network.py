"""A core node on the simulator, a second core node, and a public node, as real processes.

The second core node fetches once and then only listens, and the public node follows it: an update
at the exchange goes the whole way, fetch, gossip, change log.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import PRIMARY, SECONDARY, Node, free_port, running, wait_for
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 7, 1)


@dataclass
class Network:
    exchange: SimulatorServer
    core: Node
    second: Node
    public: Node

    @property
    def nodes(self) -> list[Node]:
        return [self.core, self.second, self.public]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    market = SimulatedMarket(
        Universe.read(), clock=AcceleratedClock(NOON, 0), seed=7, history_start=HISTORY_START
    )
    core_port, second_port, public_port = free_port(), free_port(), free_port()
    folder = tmp_path_factory.mktemp("network")
    common = {
        "DEBUG_SYSTEM_TIME": NOON.isoformat(),
        "HISTORY_START": HISTORY_START.isoformat(),
    }
    with (
        SimulatorServer(market) as exchange,
        running(
            "second",
            folder / "second",
            second_port,
            VCI_BASE_URL=exchange.url,
            # One cycle, then nothing for a long while: later updates come by gossip alone.
            CORE_WORKER_INTERVAL="600",
            TRUST_WINDOW="3600",
            **common,
        ) as second,
        running(
            "core",
            folder / "core",
            core_port,
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=second.url,
            **common,
        ) as core,
        running(
            "public",
            folder / "public",
            public_port,
            CORE_NETWORK_URL=second.url,
            **common,
        ) as public,
    ):
        yield Network(exchange, core, second, public)


def test_all_nodes_serve_the_same_last_bar_within_10_s_of_the_first_fetch(network: Network) -> None:
    wait_for(
        lambda: network.core.get("/health").json()["iteration_count"] > 0, "a fetch", network.core
    )
    wait_for(
        lambda: same_market(network.nodes), "the same market everywhere", *network.nodes, seconds=10
    )
    assert len(network.core.last_bars()) == 287


def test_an_update_at_the_exchange_reaches_all(network: Network) -> None:
    before = wait_for(lambda: same_market(network.nodes), "the same market", *network.nodes)
    bar = before["VCB"]
    price, volume = bar["high"], bar["volume"] + 12_300
    network.exchange.set_bars({"VCB": {"close": price, "volume": volume}})
    for node in network.nodes:
        wait_for(
            partial(serves_volume, node, volume),
            f"the update at {node.name}",
            node,
            seconds=10,
        )
        assert node.last_bars()["VCB"]["close"] == price


def test_a_public_bar_accepted_at_the_core_is_not_served_by_the_public_node(
    network: Network,
) -> None:
    # At the second core node no trusted word of FPT comes in between, so the overlay stands.
    bar = wait_for(lambda: network.public.last_bars().get("FPT"), "FPT", network.public)
    sent = {**bar, "volume": bar["volume"] + 100}
    assert network.second.post("/public/gossip", sent).status_code == 200
    cycles = iterations(network.public)
    wait_for(lambda: iterations(network.public) > cycles + 1, "two cycles", network.public)
    assert last(network.second, "FPT") == sent
    assert last(network.second, "FPT", authority="trusted") == bar
    assert last(network.public, "FPT") == bar


@pytest.mark.parametrize("token", [PRIMARY, SECONDARY])
def test_either_token_opens_the_door(network: Network, token: str) -> None:
    bar = network.second.last_bars()["ACB"]
    answer = network.second.post("/gossip", bar, Authorization=f"Bearer {token}")
    assert answer.status_code == 200
    assert network.second.post("/gossip", bar, Authorization="Bearer wrong").status_code == 401


def test_no_secret_is_in_any_log(network: Network) -> None:
    for node in network.nodes:
        log = node.log()
        assert "cycle 1" in log
        assert PRIMARY not in log
        assert SECONDARY not in log


def serves_volume(node: Node, volume: int) -> bool:
    return bool(node.last_bars()["VCB"]["volume"] == volume)


def iterations(node: Node) -> int:
    return int(node.get("/health").json()["iteration_count"])


def last(node: Node, symbol: str, **query: str) -> object:
    answer = node.get("/tickers", params={"symbol": symbol, "limit": "1", **query})
    return answer.json()[symbol][-1]


def same_market(nodes: list[Node]) -> dict[str, dict[str, Any]] | None:
    """The last bars when all nodes serve the same whole market."""
    first, *others = (node.last_bars() for node in nodes)
    return first if len(first) == 287 and all(other == first for other in others) else None
