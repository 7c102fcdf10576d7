"""A leader that stops in the middle of a fetch, past its lease, and wakes: nothing it writes lands.

The paused leader holds an answer of the exchange that is out of date by then, and a peer's answer
to what it sent. Its successor is made to wait at the exchange before it wakes, so that the store
stands still, and whatever changes is the woken one's.
"""

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from simulator.clock import AcceleratedClock
from simulator.loopback import LoopbackServer
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.yard import Process, StoreServer, Yard
from tickers.market_clock import MarketClock
from tickers.store.store import ROOT, Store
from tickers.universe import Universe

pytestmark = pytest.mark.slow

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 7, 1)
UNIVERSE = Universe.read().only(("VCB", "FPT", "HPG", "VNINDEX"))

PAUSED_MEANWHILE = 1.5  # seconds that the exchange takes to answer what the leader is paused in
LATE, FINAL = 123_456_700, 123_456_800  # volumes: what the paused leader was told, and the truth
HANGS = 300  # seconds: no answer of the exchange in the test's time

# What says who leads, and the budget of requests, which a woken worker may use.
NOT_THE_MARKET = {
    f"{ROOT}:lease".encode(),
    f"{ROOT}:fencing".encode(),
    b"{market}:upstream_requests",
}


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Peer"

    def log_message(self, format: str, *args: Any) -> None:
        """A test's output is pytest's."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.counting:
            self.server.received += 1
        self.server.opened.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


class Peer(LoopbackServer):
    """Takes whatever comes, and answers while it is ``opened``."""

    def __init__(self) -> None:
        super().__init__(_Door)
        self.received = 0
        self.counting = threading.Lock()
        self.opened = threading.Event()
        self.opened.set()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer
        peer.opened.set()


@dataclass
class Pair:
    """Two workers on one store, neither of them started."""

    exchange: SimulatorServer
    server: StoreServer
    store: Store
    leader: Process
    successor: Process
    peer: Peer

    def volume(self) -> int:
        newest = self.store.newest(["VCB"])
        return newest["VCB"].volume if newest else 0

    def set_volume(self, volume: int) -> None:
        self.exchange.set_bars({"VCB": {"volume": volume}})

    def stat(self, name: str) -> int:
        return int(self.exchange.stats().get(name, 0))

    def pause_the_leader_in_its_next_fetch(self) -> None:
        """The answer that it then has to read says LATE, and the truth is FINAL."""
        self.exchange.set_latency(PAUSED_MEANWHILE)
        asked = self.stat("requests")
        if not self.leader.lives:
            self.leader.start()
        wait_for(lambda: self.stat("requests") > asked, "a request under way")
        sent = self.stat("bytes_sent")
        self.leader.pause()
        self.set_volume(LATE)
        wait_for(lambda: self.stat("bytes_sent") > sent, "the exchange's answer")
        self.set_volume(FINAL)
        self.exchange.set_latency(0)

    def wait_for_the_successor(self) -> None:
        wait_for(lambda: self.successor.says("leading"), "another leader")
        wait_for(lambda: self.volume() == FINAL, "the truth")
        wait_for(lambda: self.store.status().get("pid") == self.successor.pid, "its status")
        wait_for(self.all_is_delivered, "the peer to take the truth")

    def all_is_delivered(self) -> bool:
        reads: Any = self.server.client
        (peer_id,) = reads.smembers(f"{ROOT}:ledgers") or (b"",)
        taken = reads.hgetall(f"{ROOT}:ledger:{peer_id.decode()}")
        changed = self.store.changed()
        return bool(changed) and changed == {
            k.decode(): int(v.split()[0]) for k, v in taken.items()
        }

    def stand_still(self) -> None:
        """From here on no fetch ends, so that nothing more is written by whoever rightly leads."""
        self.exchange.set_latency(HANGS)
        asked = self.stat("requests")
        wait_for(lambda: self.stat("requests") > asked, "the successor to wait for the exchange")

    def everything(self) -> dict[bytes, bytes]:
        reads: Any = self.server.client
        return {key: reads.dump(key) for key in reads.scan_iter() if key not in NOT_THE_MARKET}

    def lease(self) -> bytes:
        return bytes(self.server.client.get(f"{ROOT}:lease") or b"")  # type: ignore[arg-type]


@pytest.fixture
def pair(yard: Yard, peer: Peer) -> Iterator[Pair]:
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=7, history_start=HISTORY_START
    )
    server = yard.store("store")
    server.start()
    store = Store(server.client, clock=MarketClock(frozen_at=NOON), trust_window=300)
    with SimulatorServer(market) as exchange:
        environment = yard.environment(
            "node",
            REDIS_URL=server.url,
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=f"http://127.0.0.1:{peer.port}",
            TICKERS=",".join(UNIVERSE.symbols),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=NOON.isoformat(),
        )
        leader, successor = (yard.worker(name, environment) for name in ("leader", "successor"))
        yield Pair(exchange, server, store, leader, successor, peer)


def pause_in_an_update(pair: Pair) -> None:
    """The leader has a bar's newest state on its way from the exchange, and another one's to the
    peer, whose answer it gets only when it wakes."""
    pair.leader.start()
    wait_for(lambda: pair.leader.says("leading"), "a leader")
    pair.successor.start()
    wait_for(pair.all_is_delivered, "the first delivery")
    pair.peer.opened.clear()
    received = pair.peer.received
    pair.set_volume(LATE - 100)
    wait_for(lambda: pair.peer.received > received, "a delivery under way")
    pair.pause_the_leader_in_its_next_fetch()
    pair.peer.opened.set()


def pause_in_the_first_load(pair: Pair) -> None:
    """The leader has whole histories on their way."""
    pair.pause_the_leader_in_its_next_fetch()
    pair.successor.start()


def it_stands_by_and_changes_nothing(pair: Pair) -> None:
    pair.wait_for_the_successor()
    pair.stand_still()
    before, fence = pair.everything(), pair.lease()
    pair.leader.wake()
    wait_for(lambda: pair.leader.says("standing by"), "the woken one to stand by")
    assert pair.leader.says("the lease was lost in the cycle")
    assert pair.everything() == before
    assert pair.lease() == fence


def it_leads_anew_and_changes_nothing(pair: Pair, *, of_the_peer: bool) -> None:
    pair.wait_for_the_successor()
    pair.stand_still()
    last_fence = pair.lease()
    pair.successor.kill()
    wait_for(lambda: not pair.lease(), "the successor's lease to run out")
    before, asked = pair.everything(), pair.stat("requests")
    pair.leader.wake()
    wait_for(lambda: pair.stat("requests") > asked, "the woken one to fetch anew")
    assert pair.leader.says("the lease was lost in the cycle")
    if of_the_peer:
        assert pair.leader.says("ends: another worker leads"), "no ledger was to be written"
    assert pair.leader.log().count("leading") == 2
    assert pair.everything() == before
    assert number_of(pair.lease()) > number_of(last_fence)


def number_of(fence: bytes) -> int:
    return int(fence.split(b":")[0])


def test_a_leader_paused_in_an_update_writes_nothing_when_it_wakes(pair: Pair) -> None:
    pause_in_an_update(pair)
    it_stands_by_and_changes_nothing(pair)
    assert pair.leader.says("ends: another worker leads"), "nothing was to be written to a ledger"


def test_a_leader_paused_in_its_first_load_writes_nothing_when_its_successor_has_died(
    pair: Pair,
) -> None:
    pause_in_the_first_load(pair)
    it_leads_anew_and_changes_nothing(pair, of_the_peer=False)


def test_a_leader_paused_in_an_update_writes_nothing_when_its_successor_has_died(
    pair: Pair,
) -> None:
    pause_in_an_update(pair)
    it_leads_anew_and_changes_nothing(pair, of_the_peer=True)


def test_a_leader_paused_in_its_first_load_writes_nothing_when_it_wakes(pair: Pair) -> None:
    pause_in_the_first_load(pair)
    it_stands_by_and_changes_nothing(pair)
