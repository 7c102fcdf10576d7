"""Doors on loopback that tests put in a node's way: they count what comes, and answer as told.

A `Door` is an HTTP server that can be stopped and started again on its port; `pass_on_to` makes it
a proxy in front of a node. A `BadPeer` is a bare socket, for peers that don't speak HTTP as they
should.
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from simulator.loopback import LoopbackServer, Started

PATIENCE = 30.0  # seconds until a test gives up waiting
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER of 0 s: closing sends RST


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``status`` None hangs up without one."""

    status: int | None
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, and the status it was answered with."""

    path: str
    authorization: str
    content_type: str
    body: bytes
    at: float  # monotonic seconds

    @property
    def is_list(self) -> bool:
        return isinstance(json.loads(self.body), list)

    @property
    def bars(self) -> list[dict[str, Any]]:
        decoded = json.loads(self.body)
        return decoded if isinstance(decoded, list) else [decoded]

    @property
    def symbols(self) -> list[str]:
        return [bar["symbol"] for bar in self.bars]


Answer = Callable[[Request], Reply]


# --- Answers --------------------------------------------------------------------------------------


def take(request: Request) -> Reply:
    return Reply(200)


def one_bar_a_post(status: int) -> Answer:
    """As existing Rust nodes: a list isn't a bar they know, and gets ``status``."""
    return lambda request: Reply(status if request.is_list else 200)


class OneBarEvery:
    """As the public door of existing Rust nodes: one bar every ``seconds``, 429 in between."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        if request.is_list:
            return Reply(422)
        with self._lock:
            if request.at < self._free_at:
                return Reply(429)
            self._free_at = request.at + self._seconds
        return Reply(200)


def redirect_to(url: str, status: int) -> Answer:
    return lambda request: Reply(status, headers={"Location": f"{url}{request.path}"})


def pass_on_to(url: str) -> Answer:
    """What the node at ``url`` answers; hangs up when it isn't there."""
    target = urlsplit(url)

    def answer(request: Request) -> Reply:
        connection = http.client.HTTPConnection(
            target.hostname or "", target.port, timeout=PATIENCE
        )
        headers = {"Content-Type": request.content_type, "Authorization": request.authorization}
        with contextlib.closing(connection):
            try:
                connection.request("POST", request.path, request.body, headers)
                response = connection.getresponse()
                return Reply(response.status, response.read())
            except OSError:
                return Reply(None)

    return answer


# --- A door ---------------------------------------------------------------------------------------


class Door(Started):
    """Notes every request (``seen``, with its reply) and answers it; a context manager.

    With ``tls`` it speaks HTTPS.
    """

    def __init__(self, answer: Answer = take, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.tls = tls
        self._seen: list[tuple[Request, Reply]] = []
        self._noted = threading.Condition()
        self._port = 0
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def seen(self) -> list[tuple[Request, Reply]]:
        with self._noted:
            return list(self._seen)

    @property
    def taken(self) -> list[Request]:
        """The requests that were answered with 200."""
        return [request for request, reply in self.seen if reply.status == 200]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until ``condition``, looked at after each request, is true."""
        with self._noted:
            assert self._noted.wait_for(condition, PATIENCE), f"waited {PATIENCE:g} s for {what}"

    def forget(self) -> None:
        with self._noted:
            self._seen.clear()

    def note(self, request: Request, reply: Reply) -> None:
        with self._noted:
            self._seen.append((request, reply))
            self._noted.notify_all()

    def start(self) -> None:
        """Listen, on the same port as before."""
        assert self._server is None, "the door is open already"
        self._server = _Server(self, self._port)
        self._port = self._server.port
        self._server.start()

    def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is not None:
            self._server.stop()
            self._server = None


class _Server(LoopbackServer):
    def __init__(self, door: Door, port: int) -> None:
        self.door = door
        super().__init__(_Handler, port=port)
        if door.tls:
            self.socket = door.tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            path=self.path,
            authorization=self.headers.get("Authorization", ""),
            content_type=self.headers.get("Content-Type", ""),
            body=body,
            at=time.monotonic(),
        )
        reply = self.server.door.answer(request)
        self.server.door.note(request, reply)
        if reply.status is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        pass


# --- Bad peers ------------------------------------------------------------------------------------


class BadPeer:
    """A listening socket. ``behaviour`` has each connection for itself, and ends with it; None
    never accepts any. ``calls`` counts connections, ``sent`` bytes."""

    def __init__(self, behaviour: "Callable[[BadPeer, socket.socket], None] | None") -> None:
        self.calls = 0
        self.sent = 0
        self.closing = threading.Event()
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._listener.settimeout(0.1)
        self._threads: list[threading.Thread] = []
        if behaviour is not None:
            self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def close(self) -> None:
        self.closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="bad peer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.calls += 1
                self._begin(self._misbehave, connection)

    def _misbehave(self, connection: socket.socket) -> None:
        assert self._behaviour is not None
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            self._behaviour(self, connection)


def hear(connection: socket.socket) -> None:
    """Read a request's head and what comes along with it."""
    head = b""
    while b"\r\n\r\n" not in head and (part := connection.recv(65_536)):
        head += part


def answer_with_garbage(peer: BadPeer, connection: socket.socket) -> None:
    hear(connection)
    peer.send(connection, b"\x00\xff\x13 what is this?\r\n" * 50)


def answer_with_tls(peer: BadPeer, connection: socket.socket) -> None:
    """A TLS alert: what an HTTPS port says to a client that speaks HTTP."""
    hear(connection)
    peer.send(connection, b"\x15\x03\x01\x00\x02\x02\x46")


def answer_without_end(peer: BadPeer, connection: socket.socket) -> None:
    """A body of 1 GB, as fast as it is read."""
    hear(connection)
    peer.send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    drop = b" " * 65_536
    for _ in range(1_000_000_000 // len(drop)):
        if peer.closing.is_set():
            return
        peer.send(connection, drop)


def send_head_without_end(peer: BadPeer, connection: socket.socket) -> None:
    """Header after header, of 1 GB together."""
    hear(connection)
    peer.send(connection, b"HTTP/1.1 200 OK\r\n")
    line = b"X-Filler: " + b"x" * 1_000 + b"\r\n"
    for _ in range(1_000_000_000 // len(line)):
        if peer.closing.is_set():
            return
        peer.send(connection, line)


def never_finish(peer: BadPeer, connection: socket.socket) -> None:
    """A byte now and then: each one comes in time, the answer never does."""
    hear(connection)
    peer.send(connection, b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not peer.closing.wait(0.2):
        peer.send(connection, b"x")


def close_at_once(peer: BadPeer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@contextlib.contextmanager
def bad_peer(
    behaviour: Callable[[BadPeer, socket.socket], None] | None,
) -> Iterator[BadPeer]:
    peer = BadPeer(behaviour)
    try:
        yield peer
    finally:
        peer.close()
