"""Peers that misbehave, all at once, beside a good one: each costs its own delivery only.

One core node, as real processes, delivers to all of them while the exchange moves on.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.proxies import (
    BadPeer,
    Door,
    answer_with_garbage,
    answer_with_tls,
    answer_without_end,
    bad_peer,
    close_at_once,
    never_finish,
    redirect_to,
    send_head_without_end,
    take,
)
from tests.support.yard import PRIMARY, SECONDARY, Node, Yard
from tickers.universe import Universe

pytestmark = pytest.mark.slow

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(Universe.read().symbols[:12])

BEHAVIOURS: dict[str, Callable[[BadPeer, Any], None] | None] = {
    "garbage": answer_with_garbage,
    "TLS on an HTTP port": answer_with_tls,
    "a body of 1 GB": answer_without_end,
    "a head of 1 GB": send_head_without_end,
    "an answer that never ends": never_finish,
    "hangs up at once": close_at_once,
    "never accepts": None,
}
REDIRECTS = (301, 302, 303, 307, 308)

UPDATES = 12
USUAL = 5.0  # seconds for an update to reach a good peer; a peer that hangs would cost it 10
CYCLE = 0.3  # seconds: CORE_WORKER_INTERVAL of the tests' nodes


@dataclass
class Scene:
    exchange: SimulatorServer
    core: Node
    good: Door
    bad: dict[str, BadPeer]
    redirecting: list[Door]
    elsewhere: Door  # where the redirects lead
    resident: int = 0  # bytes of the worker before the updates
    threads: int = 0
    reached_after: tuple[float, ...] = ()  # seconds, for each update
    cycles: int = 0
    seconds: float = 0.0

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.core.worker.pid)

    def iterations(self) -> int:
        return int(self.core.get("/health").json()["iteration_count"])


@pytest.fixture(scope="module")
def scene(module_yard: Yard) -> Iterator[Scene]:
    """After a number of updates at the exchange, each of which was awaited at the good peer."""
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=7, history_start=HISTORY_START
    )
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatorServer(market))
        good = stack.enter_context(Door(take))
        elsewhere = stack.enter_context(Door(take))
        bad = {name: stack.enter_context(bad_peer(what)) for name, what in BEHAVIOURS.items()}
        redirecting = [
            stack.enter_context(Door(redirect_to(elsewhere.url, status))) for status in REDIRECTS
        ]
        doors = [*redirecting, good]
        peers = [*(peer.url for peer in bad.values()), *(door.url for door in doors)]
        core = module_yard.node(
            "core",
            module_yard.port(),
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=",".join(peers),
            TICKERS=",".join(UNIVERSE.symbols),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=NOON.isoformat(),
        )
        core.start()
        scene = Scene(exchange, core, good, bad, redirecting, elsewhere)
        good.wait_for(lambda: good.taken, "the market")
        wait_for(core.answers, "the API", core)
        wait_for(lambda: scene.iterations() > 1, "a cycle", core)
        watch(scene)
        yield scene


def watch(scene: Scene) -> None:
    worker, good = scene.worker, scene.good
    scene.resident, scene.threads = worker.memory_info().rss, worker.num_threads()
    started, iterations = time.monotonic(), scene.iterations()
    for update in range(UPDATES):
        volume = (update + 1) * 10**9
        moved_at = time.monotonic()
        scene.exchange.set_bars({symbol: {"volume": volume} for symbol in UNIVERSE.symbols})
        good.wait_for(partial(has_only, good, volume), f"update {update} at the good peer")
        scene.reached_after += (good.taken[-1].at - moved_at,)
    scene.cycles = scene.iterations() - iterations
    scene.seconds = time.monotonic() - started


def has_only(door: Door, volume: int) -> bool:
    return volumes(door) == {volume}


def volumes(door: Door) -> set[int]:
    """The newest volumes that a peer has taken, of all symbols."""
    newest = {bar["symbol"]: bar["volume"] for request in door.taken for bar in request.bars}
    return set(newest.values())


def test_a_good_peer_beside_them_gets_every_update_within_the_usual_time(scene: Scene) -> None:
    assert len(scene.reached_after) == UPDATES
    assert max(scene.reached_after) < USUAL


def test_the_cycles_keep_their_pace(scene: Scene) -> None:
    """A part of the pace at least: the machine may be busy with other things."""
    assert scene.cycles >= scene.seconds / CYCLE / 4
    assert scene.core.get("/health").json()["worker"]["cycle"]["errors"] == []


def test_each_of_them_was_called(scene: Scene) -> None:
    for name, peer in scene.bad.items():
        if name != "never accepts":
            assert peer.calls > 0, name
    assert all(door.seen for door in scene.redirecting)


def test_each_of_them_is_told_to_be_failing(scene: Scene) -> None:
    """Three answers in a row, each of which may take its time, open a circuit."""

    def told() -> dict[str, int]:
        return dict(scene.core.get("/health").json()["worker"]["delivery"]["internal"])

    # What sends a body without end has answered 200 before: its bars are taken.
    bad = len(scene.bad) + len(scene.redirecting) - 1
    wait_for(lambda: told()["failing"] == bad, f"{bad} failing peers", scene.core, seconds=60)
    assert told()["reachable"] == 2


def test_redirects_are_not_followed(scene: Scene) -> None:
    assert all(request.authorization for door in scene.redirecting for request, _ in door.seen)
    assert scene.elsewhere.seen == []


def test_a_gigabyte_is_not_read(scene: Scene) -> None:
    """What was sent is what was read, and what the sockets' buffers hold."""
    for name in ("a body of 1 GB", "a head of 1 GB"):
        peer = scene.bad[name]
        assert peer.calls > 0
        assert peer.sent / peer.calls < 10_000_000, name


def test_the_workers_memory_and_threads_stay_bounded(scene: Scene) -> None:
    assert scene.worker.memory_info().rss - scene.resident < 16_000_000
    # Of each peer a thread that delivers, and one that ends a request which takes too long.
    assert scene.worker.num_threads() <= scene.threads + len(scene.bad) + len(scene.redirecting)


def test_the_token_is_in_no_log(scene: Scene) -> None:
    log = scene.core.worker.log() + scene.core.api.log()
    assert "is unreachable" in log
    assert PRIMARY not in log
    assert SECONDARY not in log
