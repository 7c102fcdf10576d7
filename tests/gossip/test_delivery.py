"""Delivery: what peers get, when, and what becomes of peers that misbehave.

The peers are real HTTP servers on loopback, the store is the real server; only time is ours.
"""

import contextlib
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from gossip.connection import CONNECT_WITHIN, MAX_ANSWER
from gossip.delivery import Delivery
from gossip.lacks import MAX_BARS
from gossip.peer import Peer, PeerKind
from tests.gossip.conftest import TODAY, YESTERDAY, a_bar
from tickers.bar import Bar
from tickers.connection import connect
from tickers.market_clock import EXCHANGE_ZONE, MarketClock
from tickers.store import ROOT, Authority, Store

TOKEN = "delivery-primary-token"
PATIENCE = 10.0  # seconds until a test gives up; none needs more than a few milliseconds
LATE_EVENING = settings.DEBUG_SYSTEM_TIME.astimezone(EXCHANGE_ZONE).replace(hour=20)


# --- A peer ---------------------------------------------------------------------------------------


@dataclass
class Received:
    """A request, and how to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    handler: BaseHTTPRequestHandler = field(repr=False)

    @property
    def bars(self) -> list[dict[str, Any]]:
        decoded = json.loads(self.body)
        return decoded if isinstance(decoded, list) else [decoded]

    @property
    def symbols(self) -> list[str]:
        return [bar["symbol"] for bar in self.bars]

    @property
    def is_list(self) -> bool:
        return isinstance(json.loads(self.body), list)

    @property
    def port(self) -> int:
        """Of our end: the same in two requests that came over one connection."""
        return int(self.handler.client_address[1])

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def write(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()


Behaviour = Callable[[Received], None]


def take(request: Received) -> None:
    request.answer(200)


def always(status: int, **headers: str) -> Behaviour:
    return lambda request: request.answer(status, **headers)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour a request; the last for all that follow."""
    left = list(behaviours)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def refuse_lists(status: int) -> Behaviour:
    return lambda request: request.answer(status if request.is_list else 200)


class Node(ThreadingHTTPServer):
    """A peer that notes what it gets and behaves as told."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour = take, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behaviour = behaviour
        self.received: list[Received] = []
        self.noted = threading.Condition()
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def symbols(self) -> list[list[str]]:
        """What came: the symbols of each request."""
        return [request.symbols for request in self.received]

    def wait_for(self, count: int) -> list[Received]:
        with self.noted:
            assert self.noted.wait_for(lambda: len(self.received) >= count, PATIENCE), (
                f"{count} requests were awaited, and came: {self.symbols}"
            )
        return self.received

    def handle_error(self, request: Any, client_address: Any) -> None:
        """We were hung up on: that is what some tests are about."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Node

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Received(self.path, dict(self.headers), body, self)
        with self.server.noted:
            self.server.received.append(request)
            self.server.noted.notify_all()
        self.server.behaviour(request)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Gate:
    """A behaviour that answers nothing until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, request: Received) -> None:
        assert self.opened.wait(PATIENCE)
        request.answer(200)


# --- Fixtures -------------------------------------------------------------------------------------


class Time:
    """The monotonic clock of a delivery; it moves when told to."""

    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(clean_server: redis.Redis) -> Iterator[Store]:
    with connect(settings.REDIS_URL, timeout=5) as client:
        yield Store(
            client, clock=MarketClock(frozen_at=settings.DEBUG_SYSTEM_TIME), trust_window=300
        )


class Core:
    """A core node's worker: it leads, fetches, and delivers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time = Time()
        self.fence = ""
        self.deliveries: list[Delivery] = []
        self.numbers = itertools.count()
        self.lead()

    def lead(self) -> str:
        """Take the lease, whoever holds it: as if the holder's time had run out."""
        self.store.client.delete(f"{ROOT}:lease")
        self.fence = self.store.acquire_lease(60) or ""
        return self.fence

    def fetch(self, *bars: Bar) -> None:
        self.store.merge(bars, Authority.CORE, fence=self.fence)
        self.wake()

    def deliver(self, *peers: Peer, **options: Any) -> Delivery:
        delivery = Delivery(
            store=self.store,
            peers=peers,
            **{
                "clock": self.store.clock,
                "monotonic": self.time,
                "jitter": lambda most: most,
                **options,
            },
        )
        self.deliveries.append(delivery)
        delivery.start(self.fence)
        return delivery

    def wake(self) -> None:
        for delivery in self.deliveries:
            delivery.wake()

    def after(self, seconds: float) -> None:
        self.time.now += seconds
        self.wake()


@pytest.fixture
def core(store: Store) -> Iterator[Core]:
    core = Core(store)
    yield core
    for delivery in core.deliveries:
        delivery.stop(timeout=2)


@pytest.fixture
def nodes() -> Iterator[Callable[..., Node]]:
    with contextlib.ExitStack() as stack:

        def make(behaviour: Behaviour = take, **options: Any) -> Node:
            node = Node(behaviour, **options)
            stack.callback(node.close)
            return node

        yield make


def internal(node: Node) -> Peer:
    return Peer(node.url, PeerKind.INTERNAL, TOKEN)


def public(node: Node) -> Peer:
    return Peer(node.url, PeerKind.PUBLIC)


@contextlib.contextmanager
def store_away(store: Store) -> Iterator[None]:
    """Nobody listens where the server was."""
    pool = store.client.connection_pool
    there = pool.connection_kwargs["path"]
    pool.connection_kwargs["path"] = f"{there}.gone"
    pool.reset()
    try:
        yield
    finally:
        pool.connection_kwargs["path"] = there
        pool.reset()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        threading.Event().wait(0.002)


def until_taken(delivery: Delivery, bars: int, kind: str = "internal") -> None:
    """Until its ledger says that so many bars were taken, and nothing is lacking."""
    until(lambda: delivery.status()[kind]["sent"] == bars)
    until(lambda: delivery.status()[kind]["lacking"] == 0)


def settle(core: Core, node: Node, marker: str = "ZZZ") -> list[list[str]]:
    """What the node got before a marker that is fetched now: all that it will get."""
    core.fetch(a_bar(marker))
    until(lambda: any(marker in symbols for symbols in node.symbols))
    before = node.symbols[:-1]
    assert node.symbols[-1] == [marker]
    return before


def looks_without_sending(core: Core, node: Node) -> None:
    """Twice the delivery is seen to look at the store, and the node gets nothing of it."""
    count, delivery = len(node.received), core.deliveries[0]
    for _ in range(2):
        lacking = delivery.status()["internal"]["lacking"]
        core.fetch(a_bar(f"NEW{next(core.numbers)}"))
        until(lambda lacking=lacking: delivery.status()["internal"]["lacking"] > lacking)
    assert len(node.received) == count


# --- What peers get -------------------------------------------------------------------------------


class TestGossip:
    def test_an_internal_peer_gets_what_it_lacks_as_one_list(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        bars = [a_bar("FPT"), a_bar("VCB", day=YESTERDAY, price=64_300.5)]
        core.fetch(*bars)
        node = nodes()
        core.deliver(internal(node))
        (request,) = node.wait_for(1)
        assert request.path == "/gossip"
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["Content-Type"] == "application/json"
        assert request.body == b"[" + bars[0].encode() + b"," + bars[1].encode() + b"]"

    def test_one_bar_is_sent_as_it_is(self, core: Core, nodes: Callable[..., Node]) -> None:
        node = nodes()
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        assert node.wait_for(1)[0].body == a_bar("VCB").encode()

    def test_a_public_peer_gets_no_authorization_header(
        self,
        core: Core,
        nodes: Callable[..., Node],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password secret\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        node = nodes()
        core.deliver(public(node))
        core.fetch(a_bar("VCB"))
        (request,) = node.wait_for(1)
        assert request.path == "/public/gossip"
        assert "authorization" not in {name.lower() for name in request.headers}
        assert TOKEN not in str(request.headers)

    def test_no_proxy_of_the_environment_sees_the_token(
        self, core: Core, nodes: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy, node = nodes(), nodes()
        monkeypatch.setenv("http_proxy", proxy.url)
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        assert proxy.received == []

    def test_the_longest_waiting_come_first(self, core: Core, nodes: Callable[..., Node]) -> None:
        for symbol in ("VCB", "FPT", "ACB"):
            core.fetch(a_bar(symbol))
        node = nodes()
        core.deliver(internal(node))
        assert node.wait_for(1)[0].symbols == ["VCB", "FPT", "ACB"]

    def test_many_bars_come_in_several_lists(self, core: Core, nodes: Callable[..., Node]) -> None:
        core.fetch(*(a_bar(f"S{i:04}") for i in range(MAX_BARS + 3)))
        node = nodes()
        core.deliver(internal(node))
        assert [len(request.bars) for request in node.wait_for(2)] == [MAX_BARS, 3]

    def test_what_came_by_gossip_or_by_following_is_not_passed_on(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        store.merge([a_bar("VCB", volume=2_000_000)], Authority.INTERNAL)
        store.merge([a_bar("ACB")], Authority.FOLLOWED)
        core.deliver(internal(node))
        node.wait_for(1)
        assert settle(core, node) == [["FPT"]]

    def test_overlays_never_travel(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        core.fetch(a_bar("VCB", price=64_300))
        lie = a_bar("VCB", price=70_000, volume=2_000_000)
        laid = store.lay([(lie, "64300")], actor="203.0.113.9", late_after=0)
        assert laid.changed == 1
        node = nodes()
        core.deliver(internal(node))
        assert node.wait_for(1)[0].bars[0]["close"] == 64_300
        assert len(settle(core, node)) == 1

    def test_a_change_is_on_its_way_at_once(self, core: Core, nodes: Callable[..., Node]) -> None:
        node = nodes()
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        started = time.monotonic()
        core.fetch(a_bar("VCB", volume=2_000_000))
        node.wait_for(2)
        assert time.monotonic() - started < 2

    def test_requests_share_a_connection(self, core: Core, nodes: Callable[..., Node]) -> None:
        node = nodes()
        core.deliver(internal(node))
        for volume in range(1, 4):
            core.fetch(a_bar("VCB", volume=volume))
            node.wait_for(volume)
        assert len({request.port for request in node.received}) == 1

    def test_a_connection_that_the_peer_has_closed_is_opened_again(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        def take_and_hang_up(request: Received) -> None:
            request.answer(200)
            request.handler.close_connection = True

        node = nodes(take_and_hang_up)
        delivery = core.deliver(internal(node))
        for volume in range(1, 4):
            core.fetch(a_bar("VCB", volume=volume))
            node.wait_for(volume)
            until(lambda: delivery.status()["internal"]["lacking"] == 0)
        assert delivery.status()["internal"]["failures"] == 0


class TestConflation:
    def test_a_slow_peer_gets_the_newest_bar_of_each_symbol_and_nothing_between(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        gate = Gate()
        node = nodes(gate)
        core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        for volume in range(2, 6):
            core.fetch(a_bar("VCB", volume=volume), a_bar("FPT", volume=volume))
        gate.opened.set()
        bars = node.wait_for(2)[1].bars
        assert [(bar["symbol"], bar["volume"]) for bar in bars] == [("FPT", 5), ("VCB", 5)]
        assert len(settle(core, node)) == 2

    def test_nothing_counts_as_taken_before_the_answer(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        gate = Gate()
        node = nodes(gate)
        peer = internal(node)
        delivery = core.deliver(peer)
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        assert not store.client.exists(f"{ROOT}:ledger:" + peer.id)
        gate.opened.set()
        until(lambda: store.client.exists(f"{ROOT}:ledger:" + peer.id))
        until(lambda: delivery.status()["internal"]["sent"] == 1)


class TestNoPeerWaitsForAnother:
    def test_a_peer_that_hangs(self, core: Core, nodes: Callable[..., Node]) -> None:
        hanging, healthy = nodes(Gate()), nodes()
        core.deliver(internal(hanging), internal(healthy), public(hanging))
        for count in range(1, 21):
            core.fetch(a_bar("VCB", volume=count))
            healthy.wait_for(count)
        assert len(hanging.received) == 2

    @pytest.mark.parametrize(
        "chunk", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"X"]
    )
    def test_a_peer_that_drips_its_answer(
        self, core: Core, nodes: Callable[..., Node], chunk: bytes
    ) -> None:
        """Each byte comes in time, the answer never."""

        def drip(request: Received) -> None:
            for byte in chunk * 10_000:
                request.write(bytes([byte]))
                if request.handler.server.closing.wait(0.01):  # type: ignore[attr-defined]
                    return

        dripping, healthy = nodes(drip), nodes()
        delivery = core.deliver(internal(dripping), internal(healthy), answer_within=0.3)
        core.fetch(a_bar("VCB"))
        healthy.wait_for(1)
        until(lambda: delivery.status()["internal"]["failures"] == 1)
        assert delivery.status()["internal"] | {"failures": 0} == {
            "peers": 2,
            "reachable": 2,
            "failing": 0,
            "idle": 0,
            "sent": 1,
            "refused": 0,
            "failures": 0,
            "lacking": 1,
        }

    def test_a_peer_that_never_finishes_its_tls_handshake(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        healthy = nodes()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            peer = Peer(url, PeerKind.INTERNAL, TOKEN)
            started = time.monotonic()
            delivery = core.deliver(peer, internal(healthy), answer_within=0.2)
            core.fetch(a_bar("VCB"))
            healthy.wait_for(1)
            until(lambda: delivery.status()["internal"]["failures"] == 1)
            assert time.monotonic() - started < CONNECT_WITHIN

    def test_a_peer_that_never_finishes_its_answer(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        def begin(request: Received) -> None:
            request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfoo")
            request.handler.server.closing.wait(PATIENCE)  # type: ignore[attr-defined]

        node = nodes(begin)
        delivery = core.deliver(internal(node), answer_within=0.2)
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["sent"] == 1)

    def test_a_peer_that_sends_a_gigabyte(self, core: Core, nodes: Callable[..., Node]) -> None:
        written = []

        def flood(request: Received) -> None:
            request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    request.write(bytes(1_000_000))
                    written.append(1_000_000)

        node = nodes(in_turn(flood, take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["sent"] == 1)
        core.fetch(a_bar("FPT"))
        node.wait_for(2)
        assert sum(written) < 50_000_000  # what socket buffers hold, and not the rest
        assert node.received[0].port != node.received[1].port
        assert MAX_ANSWER < 100_000

    @pytest.mark.parametrize(
        "garbage",
        [b"", b"\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff" * 70_000, b"{}\n"],
    )
    def test_a_peer_that_answers_with_garbage(
        self, core: Core, nodes: Callable[..., Node], garbage: bytes, caplog: Any
    ) -> None:
        def babble(request: Received) -> None:
            request.write(garbage)
            request.handler.close_connection = True

        node, healthy = nodes(in_turn(babble, take)), nodes()
        delivery = core.deliver(internal(node), internal(healthy))
        core.fetch(a_bar("VCB"))
        healthy.wait_for(1)
        until(lambda: delivery.status()["internal"]["failures"] == 1)
        core.after(1)
        assert node.wait_for(2)[1].symbols == ["VCB"]


# --- What becomes of answers ----------------------------------------------------------------------


class TestLists:
    @pytest.mark.parametrize("status", [400, 413, 415, 422])
    def test_a_peer_that_refuses_lists_gets_single_bars(
        self, core: Core, nodes: Callable[..., Node], status: int
    ) -> None:
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        node = nodes(refuse_lists(status))
        delivery = core.deliver(internal(node))
        node.wait_for(3)
        assert settle(core, node) == [["FPT", "VCB"], ["FPT"], ["VCB"]]
        assert delivery.status()["internal"]["refused"] == 0

    def test_it_is_offered_a_list_again_after_a_while(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        node = nodes(refuse_lists(422))
        delivery = core.deliver(internal(node))
        node.wait_for(3)
        core.after(590)
        core.fetch(a_bar("VCB", volume=1), a_bar("FPT", volume=1))
        until(lambda: {1} <= {bar["volume"] for bar in node.received[-1].bars})
        until(lambda: delivery.status()["internal"]["lacking"] == 0)
        assert [request.is_list for request in node.received].count(True) == 1
        node.behaviour = take
        core.after(20)
        core.fetch(a_bar("VCB", volume=2), a_bar("FPT", volume=2))
        until(lambda: ["FPT", "VCB"] in node.symbols[3:])

    def test_a_list_whose_every_bar_was_judged_is_not_sent_bar_by_bar(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        """A public peer counts implausible requests: one is enough."""
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        detail = b'{"detail": "Implausible price change"}'
        node = nodes(in_turn(lambda request: request.answer(400, detail), take))
        delivery = core.deliver(public(node))
        until(lambda: delivery.status()["public"]["refused"] == 2)
        assert settle(core, node) == [["FPT", "VCB"]]


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 422])
    def test_a_refused_bar_is_dropped_until_it_changes(
        self, core: Core, nodes: Callable[..., Node], status: int
    ) -> None:
        node = nodes(in_turn(always(status), take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        until(lambda: delivery.status()["internal"]["refused"] == 1)
        assert settle(core, node) == [["VCB"]]
        core.fetch(a_bar("VCB", volume=2))
        assert node.wait_for(3)[2].bars[0]["volume"] == 2

    def test_refusals_are_told_once_and_not_bar_by_bar(
        self, core: Core, nodes: Callable[..., Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        node = nodes(always(422))
        delivery = core.deliver(internal(node))
        for count in range(1, 6):
            core.fetch(a_bar(f"S{count}"))
            until(lambda count=count: delivery.status()["internal"]["refused"] == count)
        assert len([r for r in caplog.records if "refuses bars" in r.message]) == 1


class TestRetries:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_they_wait_for_the_backoff_and_send_the_newest_bar(
        self, core: Core, nodes: Callable[..., Node], status: int
    ) -> None:
        node = nodes(in_turn(always(status), take))
        core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        core.fetch(a_bar("VCB", volume=2))
        looks_without_sending(core, node)
        core.after(0.3)
        assert node.wait_for(2)[1].bars[0]["volume"] == 2

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_obeyed(
        self, core: Core, nodes: Callable[..., Node], status: int
    ) -> None:
        node = nodes(in_turn(always(status, Retry_After="30"), take))
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        looks_without_sending(core, node)
        core.after(29)
        looks_without_sending(core, node)
        core.after(2)
        node.wait_for(2)

    def test_a_peer_that_is_down_gets_everything_when_it_is_back(
        self, core: Core, nodes: Callable[..., Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "gossip")
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        peer = Peer(f"http://127.0.0.1:{port}", PeerKind.INTERNAL, TOKEN)
        delivery = core.deliver(peer)
        core.fetch(*(a_bar(f"S{i:03}", volume=1) for i in range(200)))
        for failures in range(1, 6):
            until(lambda n=failures: delivery.status()["internal"]["failures"] == n)
            core.fetch(*(a_bar(f"S{i:03}", volume=failures + 1) for i in range(200)))
            core.after(3)
        until(lambda: delivery.status()["internal"]["failures"] == 6)
        assert delivery.status()["internal"]["failing"] == 1
        node = nodes(port=port)
        core.after(3)
        (request,) = node.wait_for(1)
        assert {bar["volume"] for bar in request.bars} == {6}
        assert len(request.bars) == 200
        until_taken(delivery, 200)
        lines = [record.getMessage() for record in caplog.records]
        assert [line for line in lines if f"127.0.0.1:{port}" in line] == [
            f"peer 127.0.0.1:{port} is unreachable (Connection refused); its bars wait",
            f"peer 127.0.0.1:{port} is back; it lacked 200 bars",
        ]

    def test_a_reset_connection_is_retried(self, core: Core, nodes: Callable[..., Node]) -> None:
        def reset(request: Received) -> None:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            request.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.handler.close_connection = True

        node = nodes(in_turn(reset, take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["failures"] == 1)
        core.after(1)
        assert node.wait_for(2)[1].symbols == ["VCB"]


class TestStoppedPeers:
    @pytest.mark.parametrize(
        ("status", "seconds", "remedy"),
        [
            (401, 60, "PRIMARY_TOKEN"),
            (403, 300, "PRIMARY_TOKEN"),
            (404, 60, "INTERNAL_PEER_URLS"),
            (405, 60, "INTERNAL_PEER_URLS"),
        ],
    )
    def test_they_are_left_alone_for_a_while_and_told_of_once(
        self,
        core: Core,
        nodes: Callable[..., Node],
        caplog: pytest.LogCaptureFixture,
        status: int,
        seconds: float,
        remedy: str,
    ) -> None:
        node = nodes(in_turn(always(status), always(status), take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        for count in (1, 2):
            until(lambda n=count: delivery.status()["internal"]["failures"] == n)
            core.after(seconds - 1)
            looks_without_sending(core, node)
            core.after(2)
        assert "VCB" in node.wait_for(3)[2].symbols
        until(lambda: delivery.status()["internal"]["reachable"] == 1)
        (line,) = [r.getMessage() for r in caplog.records if "wants nothing" in r.message]
        assert remedy in line
        assert str(status) in line
        assert TOKEN not in caplog.text

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(
        self, core: Core, nodes: Callable[..., Node], status: int
    ) -> None:
        elsewhere = nodes()
        node = nodes(always(status, Location=f"{elsewhere.url}/gossip"))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["failing"] == 1)
        assert elsewhere.received == []
        assert len(node.received) == 1


# --- Kinds of peers -------------------------------------------------------------------------------


class TestPublicPeers:
    def test_they_get_bars_of_the_current_trading_day_only(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        core.fetch(a_bar("FPT", day=YESTERDAY), a_bar("VCB", day=TODAY))
        node = nodes()
        delivery = core.deliver(public(node))
        node.wait_for(1)
        assert settle(core, node) == [["VCB"]]
        until(lambda: delivery.status()["public"]["lacking"] == 0)

    def test_they_get_nothing_outside_office_hours(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        core.fetch(a_bar("VCB"))
        node, colleague = nodes(), nodes()
        evening = MarketClock(frozen_at=LATE_EVENING)
        assert evening.trading_day() == TODAY
        core.deliver(public(node), internal(colleague), clock=evening)
        colleague.wait_for(1)
        core.deliveries[0].stop(timeout=2)
        assert node.received == []

    def test_a_symbol_is_sent_at_most_once_a_minute(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        core.deliver(public(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        for volume in (2, 3, 4):
            core.fetch(a_bar("VCB", volume=volume))
        assert settle(core, node) == [["VCB"]]
        core.after(59)
        assert settle(core, node, "ZZ2") == [["VCB"], ["ZZZ"]]
        core.after(2)
        assert node.wait_for(4)[3].bars[0]["volume"] == 4

    def test_the_minute_outlasts_the_process(self, core: Core, nodes: Callable[..., Node]) -> None:
        node = nodes()
        first = core.deliver(public(node))
        core.fetch(a_bar("VCB", volume=1))
        until(lambda: first.status()["public"]["sent"] == 1)
        first.stop(timeout=2)
        core.fetch(a_bar("VCB", volume=2))
        core.lead()
        core.deliver(public(node))
        assert settle(core, node) == [["VCB"]]
        core.after(61)
        assert node.wait_for(3)[2].bars[0]["volume"] == 2

    def test_a_peer_that_takes_a_bar_every_ten_seconds_gets_every_symbol_in_turn(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        """The existing Rust node: no lists, one bar every 10 s, 429 to the rest."""
        let_through_at = core.time.now
        taken: list[tuple[str, int]] = []

        def rust(request: Received) -> None:
            nonlocal let_through_at
            if request.is_list:
                return request.answer(422)
            if core.time.now < let_through_at:
                return request.answer(429)
            let_through_at = core.time.now + 10
            taken.append((request.symbols[0], request.bars[0]["volume"]))
            return request.answer(200)

        symbols = [f"S{i}" for i in range(8)]
        core.fetch(*(a_bar(symbol, volume=1) for symbol in symbols))
        node = nodes(rust)
        delivery = core.deliver(public(node))
        volume = 1
        while len(taken) < 16:
            volume += 1
            core.fetch(*(a_bar(symbol, volume=volume) for symbol in symbols))
            seen = len(node.received)
            core.after(5)
            with node.noted:
                node.noted.wait_for(lambda seen=seen: len(node.received) > seen, 0.05)
        assert {symbol for symbol, _ in taken[:8]} == set(symbols)
        assert [symbol for symbol, _ in taken[8:]] == [symbol for symbol, _ in taken[:8]]
        volumes = [v for _, v in taken]
        assert volumes == sorted(volumes)
        assert volumes[-1] > volumes[0] + 8
        assert delivery.status()["public"]["failing"] == 0


class TestInternalPeers:
    def test_a_peer_that_was_sent_nothing_for_a_minute_gets_its_newest_bar_again(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        for count, symbol in enumerate(("VCB", "FPT"), start=1):
            core.fetch(a_bar(symbol))
            until_taken(delivery, count)
        core.after(59)
        assert settle(core, node) == [["VCB"], ["FPT"]]
        for count in (3, 4):
            until_taken(delivery, count)
            core.after(61)
            assert node.wait_for(count + 1)[count].symbols == ["ZZZ"]

    def test_it_gets_none_when_our_own_data_is_out_of_date(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until_taken(delivery, 1)
        seconds, _ = store.client.time()
        store.client.set(f"{ROOT}:fetched_at", (int(seconds) - 301) * 1000)
        core.time.now += 61
        delivery.stop(timeout=2)  # which takes a last look
        assert node.symbols == [["VCB"]]


# --- Lives ----------------------------------------------------------------------------------------


class TestLeading:
    def test_the_next_delivery_sends_only_what_is_new(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        first = core.deliver(internal(node))
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        until(lambda: first.status()["internal"]["sent"] == 2)
        first.stop(timeout=2)
        core.lead()
        core.deliver(internal(node))
        assert settle(core, node) == [["FPT", "VCB"]]

    def test_the_ledger_of_a_removed_peer_is_deleted(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        kept, removed = nodes(), nodes()
        core.fetch(a_bar("VCB"))
        both = core.deliver(internal(kept), internal(removed))
        until(lambda: both.status()["internal"]["sent"] == 2)
        both.stop(timeout=2)
        core.deliver(internal(kept))
        ledgers = store.client.keys(f"{ROOT}:ledger:*")
        assert ledgers == [f"{ROOT}:ledger:".encode() + internal(kept).id.encode()]

    def test_without_peers_no_ledger_stays(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        core.fetch(a_bar("VCB"))
        delivery = core.deliver(internal(nodes()))
        until(lambda: delivery.status()["internal"]["sent"] == 1)
        core.deliver()
        assert store.client.keys(f"{ROOT}:ledger*") == []

    def test_it_ends_with_its_lease_and_begins_with_the_next(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        core.lead()
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert node.received == []
        delivery.start(core.fence)
        assert node.wait_for(1)[0].symbols == ["VCB"]
        assert delivery.status()["internal"]["idle"] == 0

    def test_what_was_answered_after_the_lease_was_lost_is_not_noted(
        self, core: Core, store: Store, nodes: Callable[..., Node]
    ) -> None:
        gate = Gate()
        node = nodes(gate)
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        core.lead()
        gate.opened.set()
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert not store.client.exists(f"{ROOT}:ledger:" + internal(node).id)

    def test_a_start_under_a_lost_lease_sends_nothing(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"))
        lost = core.fence
        core.lead()
        delivery = Delivery(store=core.store, peers=[internal(node)], clock=core.store.clock)
        delivery.start(lost)
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert node.received == []


class TestStoreAway:
    def test_delivery_goes_on_when_the_store_is_back(
        self, core: Core, nodes: Callable[..., Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"))
        with store_away(core.store):
            core.deliver(internal(node))
            until(lambda: "the store fails" in caplog.text)
        core.after(1)
        assert node.wait_for(1)[0].symbols == ["VCB"]

    def test_it_is_told_once(
        self, core: Core, nodes: Callable[..., Node], caplog: pytest.LogCaptureFixture
    ) -> None:
        with store_away(core.store):
            delivery = core.deliver(internal(nodes()))
            until(lambda: "the store fails" in caplog.text)
            delivery.stop(timeout=2)  # which takes a last look
        messages = [record.getMessage() for record in caplog.records]
        assert len([line for line in messages if "the store fails" in line]) == 1
        assert len([line for line in messages if "until the next start" in line]) == 1


class TestStop:
    def test_it_leaves_within_two_seconds_while_a_peer_hangs(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        hanging = [nodes(Gate()) for _ in range(3)]
        delivery = core.deliver(*(internal(node) for node in hanging))
        core.fetch(a_bar("VCB"))
        for node in hanging:
            node.wait_for(1)
        threads = [t for t in threading.enumerate() if t.name.startswith("delivery to")]
        assert len(threads) == 3
        started = time.monotonic()
        delivery.stop(timeout=2)
        assert time.monotonic() - started < 2
        assert not any(thread.is_alive() for thread in threads)

    def test_it_leaves_at_once_when_nobody_hangs(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node, refusing = nodes(), nodes(always(401))
        delivery = core.deliver(internal(node), public(node), internal(refusing))
        core.fetch(a_bar("VCB"))
        node.wait_for(2)
        started = time.monotonic()
        delivery.stop(timeout=2)
        assert time.monotonic() - started < 2

    def test_what_was_fetched_before_it_is_still_sent(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        """As after run_worker --once; a peer without lists needs several requests."""
        node = nodes(refuse_lists(400))
        delivery = core.deliver(internal(node))
        core.fetch(*(a_bar(f"S{i}") for i in range(20)))
        delivery.stop(timeout=5)
        assert sorted(s for request in node.received[1:] for s in request.symbols) == sorted(
            f"S{i}" for i in range(20)
        )

    def test_a_stopped_delivery_can_start_again(
        self, core: Core, nodes: Callable[..., Node]
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        delivery.stop(timeout=2)
        assert delivery.status()["internal"]["idle"] == 1
        delivery.start(core.fence)
        core.fetch(a_bar("VCB"))
        node.wait_for(1)


def test_the_status_counts_and_names_no_address(core: Core, nodes: Callable[..., Node]) -> None:
    core.fetch(a_bar("VCB"), a_bar("FPT"))
    node, down = nodes(), nodes(always(403))
    delivery = core.deliver(internal(node), internal(down), public(node))
    expected = {
        "internal": {
            "peers": 2,
            "reachable": 1,
            "failing": 1,
            "idle": 0,
            "sent": 2,
            "refused": 0,
            "failures": 1,
            "lacking": 2,
        },
        "public": {
            "peers": 1,
            "reachable": 1,
            "failing": 0,
            "idle": 0,
            "sent": 2,
            "refused": 0,
            "failures": 0,
            "lacking": 0,
        },
    }
    until(lambda: delivery.status() == expected)
