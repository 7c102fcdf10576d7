"""A worker that stops turns a status code within a minute, also in the night, when it tells of a
cycle every five minutes only."""

import datetime as dt
import time
from collections.abc import Iterator

import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.yard import Node, Yard
from tickers.universe import Universe

pytestmark = pytest.mark.slow

NIGHT = dt.datetime(2025, 8, 15, 6, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read()
UNIVERSE = UNIVERSE.only(UNIVERSE.symbols[:10])
WITHIN = 60.0  # seconds


@pytest.fixture
def node(yard: Yard) -> Iterator[Node]:
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NIGHT, 0), seed=5, history_start=HISTORY_START
    )
    with SimulatorServer(market) as exchange:
        node = yard.node(
            "core",
            yard.port(),
            VCI_BASE_URL=exchange.url,
            TICKERS=",".join(UNIVERSE.symbols),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=NIGHT.isoformat(),
        )
        node.start()
        yield node


def says(node: Node, path: str, status: int) -> bool:
    return node.get(path).status_code == status


def test_a_worker_that_is_stopped_or_killed_turns_a_status_within_a_minute(node: Node) -> None:
    wait_for(node.answers, "the node to answer", node)
    wait_for(lambda: says(node, "/health?strict=true", 200), "a well node", node)
    stopped, ended = (node.worker.pause, node.worker.kill), (node.worker.wake, node.worker.start)
    for stop, go_on in zip(stopped, ended, strict=True):
        at = time.monotonic()
        stop()
        wait_for(lambda: says(node, "/health?strict=true", 503), "a status", node, seconds=WITHIN)
        assert time.monotonic() - at > 20, "a worker that starts again has some time for it"
        assert node.get("/health").json()["problems"] == [
            "no worker leads: is manage.py run_worker running?"
        ]
        assert [says(node, path, 200) for path in ("/livez", "/readyz", "/tickers")] == [True] * 3
        go_on()
        wait_for(lambda: says(node, "/health?strict=true", 200), "a well node again", node)
