"""What a server can cost whoever asks it: the upstream, a core network and a peer alike are left in
time, and what they send is never more than it looks.

Each answer is given to a process of its own (tests.support.asking), whose peak is measured.
"""

import functools
import gzip
import itertools
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from tests.support.asking import USERS
from tests.support.proxies import BadPeer, bad_peer, hear
from tickers.snapshot.zstd_pieces import zstd

ROOT = Path(__file__).parents[2]
WITHIN = 1.0  # seconds that an exchange is given here
LATER = 1.5  # seconds: a busy machine's share
STARTING = 20.0  # seconds that a process may take to begin, on a busy machine
MEGABYTES = 64.0

Behaviour = Callable[[BadPeer, socket], None]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


def ask(url: str) -> dict[str, dict[str, Any]]:
    """What it cost each user to ask; all of them ask at once."""
    with ExitStack() as stack:
        asking = {
            user: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.asking", user, url, str(WITHIN)],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for user in USERS
        }
        # Whoever is still held by then is, for all that is known, held for ever.
        for process in asking.values():
            stack.callback(process.kill)
        return {
            user: json.loads(process.communicate(timeout=STARTING + WITHIN)[0])
            for user, process in asking.items()
        }


def check_costs(found: dict[str, dict[str, Any]]) -> None:
    assert len(found) == 3
    for user, cost in found.items():
        assert cost["outcome"] != "an answer", user
        assert cost["megabytes"] < MEGABYTES, (user, found)
        assert cost["seconds"] < WITHIN + LATER, (user, found)


# --- Answers --------------------------------------------------------------------------------------


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} Any", *lines, "", "")).encode()


def whole(status: int, encoding: str, body: Callable[[], bytes]) -> Behaviour:
    def behave(peer: BadPeer, connection: socket) -> None:
        hear(connection)
        content = body()
        lines = (f"Content-Length: {len(content)}", f"Content-Encoding: {encoding}")
        peer.send(connection, head(status, *lines, "Location: /elsewhere") + content)

    return behave


def endless(first: bytes, piece: bytes) -> Behaviour:
    def behave(peer: BadPeer, connection: socket) -> None:
        hear(connection)
        connection.settimeout(WITHIN)  # nobody reads on, and nobody says so
        peer.send(connection, first)
        while not peer.closing.is_set():
            peer.send(connection, piece)

    return behave


def drip(first: bytes, piece: bytes) -> Behaviour:
    """Each byte comes in time, the answer never."""

    def behave(peer: BadPeer, connection: socket) -> None:
        hear(connection)
        peer.send(connection, first)
        for byte in itertools.cycle(piece):
            if peer.closing.wait(0.02):
                return
            peer.send(connection, bytes([byte]))

    return behave


def drip_handshake(peer: BadPeer, connection: socket) -> None:
    """The beginning of a TLS record of 16 KB, and then a byte now and then."""
    connection.recv(65_536)
    peer.send(connection, b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
    while not peer.closing.wait(0.02):
        peer.send(connection, b"\x03")


def silence(peer: BadPeer, connection: socket) -> None:
    hear(connection)
    peer.closing.wait()


def gzip_of(piece: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


@functools.cache
def gzip_bomb() -> bytes:
    return gzip_of(bytes(1_000_000), 250)


@functools.cache
def zstd_bomb() -> bytes:
    packer = zstd.ZstdCompressor()
    zeros = bytes(1_000_000)
    return b"".join(packer.compress(zeros) for _ in range(400)) + packer.flush()


@functools.cache
def twenty_million_objects() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    objects = b"{}," * 1_000_000
    text = itertools.chain([b"["], itertools.repeat(objects, 20), [b"{}]"])
    return b"".join(map(packer.compress, text)) + packer.flush()


LARGE = {
    "a 500 with zstd": whole(500, "zstd", zstd_bomb),
    "a 302 with zstd": whole(302, "zstd", zstd_bomb),
    "a 302 with gzip": whole(302, "gzip", gzip_bomb),
    "a 302 without end": endless(
        head(302, "Location: /elsewhere", "Content-Length: 9000000000"), bytes(65_536)
    ),
    "a 200 with zstd": whole(200, "zstd", zstd_bomb),
    "a 200 of gzip in gzip": whole(200, "gzip, gzip", lambda: gzip.compress(gzip_bomb())),
    "250 MB of zeros": whole(200, "gzip", gzip_bomb),
    "20 million objects": whole(200, "gzip", twenty_million_objects),
    "spaces without end": endless(head(200, "Content-Length: 9000000000"), b" " * 65_536),
    "objects without end": endless(head(200, "Content-Length: 9000000000") + b"[", b"{}," * 20_000),
    "a head without end": endless(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1_000 + b"\r\n"),
}
SLOW = {
    "headers that drip": drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "continues that drip": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "continues without end": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "a body that drips": drip(head(200, "Content-Length: 1000000"), b" "),
    "chunks that drip": drip(head(200, "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "a redirect that drips": drip(head(302, "Location: /", "Content-Length: 1000000"), b" "),
    "silence": silence,
}
NOWHERE = [
    "http://[",
    *(pytest.param(other, marks=pytest.mark.slow) for other in ("//[", "http://a:b/", "\x80")),
]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[BadPeer]:
    with bad_peer(request.param) as server:
        yield server


def given(answers: dict[str, Behaviour], *, fast: str) -> pytest.MarkDecorator:
    """Each answer in turn; all but the one named ``fast`` are slow together."""
    cases = [
        pytest.param(behave, id=name, marks=() if name == fast else pytest.mark.slow)
        for name, behave in answers.items()
    ]
    return pytest.mark.parametrize("server", cases, indirect=True)


class TestHostileAnswers:
    @given(LARGE, fast="20 million objects")
    def test_no_answer_costs_more_memory_than_a_small_market(self, server: BadPeer) -> None:
        check_costs(ask(server.url))

    @given(SLOW, fast="headers that drip")
    def test_no_answer_takes_longer_than_the_exchange_may(self, server: BadPeer) -> None:
        check_costs(ask(server.url))

    @pytest.mark.slow
    def test_no_tls_handshake_takes_longer_than_the_exchange_may(self) -> None:
        with bad_peer(drip_handshake) as server:
            check_costs(ask(server.url.replace("http:", "https:")))

    @pytest.mark.parametrize("location", NOWHERE)
    def test_a_redirect_to_nowhere_is_a_status_like_any_other(self, location: str) -> None:
        answer = head(302, f"Location: {location}", "Content-Length: 0")

        def behave(peer: BadPeer, connection: socket) -> None:
            hear(connection)
            peer.send(connection, answer)

        with bad_peer(behave) as server:
            for user, cost in ask(server.url).items():
                assert "302" in cost["outcome"], user
