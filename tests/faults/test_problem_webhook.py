"""A real worker tells a webhook of its node's problems, and delays no cycle for it."""

import datetime as dt
import itertools
import json
from typing import Any

import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.proxies import Door, Request, bad_peer, never_finish, take
from tests.support.yard import Node, Yard
from tickers.universe import Universe

pytestmark = pytest.mark.slow

NOON = dt.datetime(2025, 8, 15, 11, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read()
UNIVERSE = UNIVERSE.only(UNIVERSE.symbols[:10])
SECRET = "T0P-SECRET"


def an_exchange() -> SimulatorServer:
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=5, history_start=HISTORY_START
    )
    return SimulatorServer(market)


def a_node(yard: Yard, exchange: SimulatorServer, webhook: str) -> Node:
    node = yard.node(
        "core",
        yard.port(),
        VCI_BASE_URL=exchange.url,
        TICKERS=",".join(UNIVERSE.symbols),
        HISTORY_START=HISTORY_START.isoformat(),
        DEBUG_SYSTEM_TIME=NOON.isoformat(),
        TRUST_WINDOW="10",  # half of it bounds the pause after cycles that failed
        PROBLEM_WEBHOOK=f"{webhook}/hooks/{SECRET}",
        LOG_LEVEL="DEBUG",
    )
    node.start()
    wait_for(node.answers, "the node to answer", node)
    wait_for(lambda: node.get("/health?strict=true").ok, "a well node", node)
    return node


def told(request: Request) -> tuple[list[str], list[str]]:
    """The kinds that began and that ended."""
    body: dict[str, Any] = json.loads(request.body)
    return [one["kind"] for one in body["began"]], [one["kind"] for one in body["ended"]]


def test_a_worker_tells_of_a_problem_and_of_its_end(yard: Yard) -> None:
    with an_exchange() as exchange, Door(take) as door:
        node = a_node(yard, exchange, door.url)
        door.forget()
        exchange.fail_with_status(404)
        wait_for(lambda: door.seen, "the beginning", node, seconds=60)
        exchange.clear_fault()
        late = "the last cycle had errors"
        wait_for(
            lambda: any(late in told(request)[1] for request, _ in door.seen),
            "the end",
            node,
            seconds=120,
        )
        requests = [request for request, _ in door.seen]
        assert late in told(requests[0])[0]
        assert all(after.at - before.at > 59 for before, after in itertools.pairwise(requests))
        assert SECRET not in node.worker.log() + node.api.log() + node.get("/health").text


def test_a_receiver_that_hangs_delays_no_cycle(yard: Yard) -> None:
    with an_exchange() as exchange, bad_peer(never_finish) as receiver:
        node = a_node(yard, exchange, receiver.url)
        exchange.fail_with_status(404)
        wait_for(lambda: receiver.calls, "a post", node, seconds=60)
        exchange.clear_fault()
        wait_for(lambda: node.get("/tickers").ok and cycles(node) > 0, "a cycle", node)
        before = cycles(node)
        wait_for(lambda: cycles(node) >= before + 10, "cycles at their pace", node, seconds=10)
        wait_for(
            lambda: "the problem webhook fails" in node.get("/health").text,
            "its problem",
            node,
            seconds=40,
        )
        assert SECRET not in node.worker.log() + node.get("/health").text


def cycles(node: Node) -> int:
    return int(node.get("/health").json()["iteration_count"])
