"""Peers as a sender meets them: real HTTP servers on loopback that note what comes and behave as
told, each request for itself."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from gossip.delivery.peer import Peer, PeerKind
from simulator.loopback import LoopbackServer

TOKEN = "delivery-primary-token"
PATIENCE = 10.0  # seconds until a test gives up; none needs more than a few milliseconds


@dataclass
class Received:
    """A request, and how to answer it."""

    path: str
    headers: dict[str, str]
    body: bytes
    handler: "_Handler" = field(repr=False)

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
    return lambda request: request.answer(status, b"{}", **headers)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour a request; the last for all that follow."""
    left = list(behaviours)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def refuse_lists(status: int) -> Behaviour:
    return lambda request: request.answer(status if request.is_list else 200)


class Gate:
    """A behaviour that answers nothing until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, request: Received) -> None:
        assert self.opened.wait(PATIENCE)
        request.answer(200)


class OldNode:
    """The behaviour of an older node (Rust): it takes one bar a POST, says a plain OK whatever it
    does with it, and serves its market as ``GET /tickers``.

    By token it keeps the first bar of a day, and drops later ones. Its public door appends what
    anybody sends, but one that is more than 10 % from the last, which is a failure; with a
    ``time`` it lets one bar through every 10 s of it.
    """

    def __init__(self, *, time: Callable[[], float] | None = None) -> None:
        self.market: dict[str, list[dict[str, Any]]] = {}
        self.looks: list[str] = []  # the paths that were read
        self.failures = 0
        self._time = time
        self._next_at = float("-inf")

    def __call__(self, request: Received) -> None:
        if request.is_list:
            request.answer(422, b"Failed to deserialize the JSON body into the target type")
        elif request.path == "/gossip":
            self.take(request.bars[0])
            request.answer(200, b"OK")
        elif self._time and self._time() < self._next_at:
            request.answer(429)
        elif self._is_implausible(request.bars[0]):
            self.failures += 1
            request.answer(400, b"Implausible price change")
        else:
            if self._time:
                self._next_at = self._time() + 10
            self.append(request.bars[0])
            request.answer(200, b"OK")

    def take(self, bar: dict[str, Any]) -> None:
        last = self.market.get(bar["symbol"], [])[-1:]
        if not last or bar["time"] > last[0]["time"]:
            self.append(bar)

    def append(self, bar: dict[str, Any]) -> None:
        bars = self.market.setdefault(bar["symbol"], [])
        bars.append(bar)
        bars.sort(key=lambda one: str(one["time"]))

    def fetch(self, *bars: dict[str, Any]) -> None:
        """Its own fetch replaces what it has of a day."""
        for bar in bars:
            kept = [b for b in self.market.get(bar["symbol"], []) if b["time"] != bar["time"]]
            self.market[bar["symbol"]] = kept
            self.append(bar)

    def last(self, symbol: str) -> dict[str, Any]:
        return self.market[symbol][-1]

    def tickers(self) -> bytes:
        """The last bar of each symbol, with a bare date."""
        last = {s: [{**b[-1], "time": b[-1]["time"][:10]}] for s, b in self.market.items()}
        return json.dumps(last).encode()

    def _is_implausible(self, bar: dict[str, Any]) -> bool:
        last = self.market.get(bar["symbol"], [])[-1:]
        return bool(last) and abs(bar["close"] - last[0]["close"]) / last[0]["close"] > 0.10


class Node(LoopbackServer):
    """A peer that notes what it gets and behaves as told, from the moment when it is made."""

    def __init__(self, behaviour: Behaviour = take, port: int = 0) -> None:
        super().__init__(_Handler, port=port)
        self.behaviour = behaviour
        self.received: list[Received] = []
        self.noted = threading.Condition()
        self.closing = threading.Event()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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

    def close(self) -> None:
        self.closing.set()
        self.stop()


Nodes = Callable[..., Node]  # the fixture: each call starts one more


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

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        assert isinstance(behaviour, OldNode), "only older nodes are looked at"
        assert "Authorization" not in self.headers
        body = behaviour.tickers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        behaviour.looks.append(self.path)
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def internal(node: Node) -> Peer:
    return Peer(node.url, PeerKind.INTERNAL, TOKEN)


def public(node: Node) -> Peer:
    return Peer(node.url, PeerKind.PUBLIC)
