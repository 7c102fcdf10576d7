"""Bodies made to break a node, at both doors, over sockets: each gets the 4xx that says what is
wrong with it, and leaves nothing behind.

What the doors make of well-sent bars is in tests/gossip; here is what only a real server shows.
"""

import contextlib
import datetime as dt
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy_site.serving import timeouts
from tests.support.front import Front, needs_nginx, nginx
from tests.support.nodes import wait_for
from tests.support.target import (
    DOORS,
    THREADS,
    TODAY,
    UNLIMITED,
    WORKERS,
    Target,
    a_bar,
    connect,
    head,
    read_answer,
    request,
    send,
    target,
)
from tickers.bar import parse_day

NOT_JSON = "The body isn't JSON."
TOO_DEEP = "The body is nested too deeply."
EMPTY = "The body is empty: send one bar or a list of bars, with a Content-Length."
EARLY = "The body ended early; send it again."
TOO_LARGE = "A body has at most 1000000 bytes; send several."
MEGABYTES = 2**20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    with target(folder, PUBLIC_RATE=UNLIMITED, BAN_AFTER_FAILURES="1000000") as node:
        yield node
        assert node.works()
        assert "Traceback" not in node.log()


def refused(node: Target, data: bytes, **options: Any) -> tuple[int, str]:
    """The status and the reason, of an answer that came with nothing stored."""
    before = node.state()
    answer = node.send(data, **options)
    assert answer is not None, "the connection ended without an answer"
    assert node.state() == before
    return answer.status, answer.detail


def with_token(name: str, token: str) -> bytes:
    """A bar whose field is this text, which no JSON encoder might write."""
    return json.dumps(a_bar(**{name: "@"})).replace('"@"', token).encode()


# --- Times ----------------------------------------------------------------------------------------

TOO_OLD = "time is before the node's first day"
FUTURE, OTHER_DAY = "time is after the node's current day", "not the current trading day"
NO_TIME = "time must be an RFC 3339 time such as 2025-08-15T00:00:00Z, or a date."
# The market clock stands at 10:00 of August 15th, 2025, in Vietnam.
TO_COME = [
    "2025-08-16",
    "2025-08-15T17:00:00Z",  # midnight there
    "2025-08-16T00:00:00+07:00",
    "2025-08-15T12:00:00.000000001-05:00",
    "2025-08-18T00:00:00Z",
    "9999-12-31",
    "9999-12-31T16:59:59Z",
]
NO_TIMES = [
    "9999-12-31T23:59:59Z",  # the calendar ends before it does in Vietnam
    "0001-01-01T00:00:00+08:00",
    "0000-01-01",
    "10000-01-01",
    "2016-12-31T23:59:60Z",  # a leap second that there was
    "2025-08-15T23:59:60Z",
    "2025-08-15T25:00:00Z",
    "2025-02-29",
    "2025-08-15T00:00:00",
    "2025-08-15T00:00:00+24:00",
    "2025-08-15T00:00:00+0700",
    "2025-W33-5",
    "20250815",
    "1755216000",
    "",
    "2025-08-15\u0000",
    " 2025-08-15",
    "２０２５-08-15",  # noqa: RUF001 - digits of another script
]
TODAYS = [
    "2025-08-15",
    "2025-08-14T17:00:00Z",
    "2025-08-15T16:59:59.999999999Z",
    "2025-08-15t10:00:00z",
    "2025-08-14T12:00:00-05:00",
    "2025-08-15T23:59:59+07:00",
]


class TestTimes:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("time", TO_COME)
    def test_of_days_to_come(self, door: str, time: str, node: Target) -> None:
        status, detail = refused(node, request(door, json.dumps(a_bar(time=time)).encode()))
        assert (status, detail) == (422, FUTURE if door == "/gossip" else OTHER_DAY)

    @pytest.mark.parametrize("door", DOORS)
    def test_by_the_machines_clock_while_the_markets_is_frozen(
        self, door: str, node: Target
    ) -> None:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        assert refused(node, request(door, json.dumps(a_bar(time=now)).encode()))[0] == 422

    @pytest.mark.parametrize(
        "time", ["1970-01-01", "0001-01-02", "2025-08-14", "2025-08-14T16:59:59Z"]
    )
    def test_of_days_past_are_no_use_to_the_public_door(self, time: str, node: Target) -> None:
        body = json.dumps(a_bar(time=time)).encode()
        assert refused(node, request("/public/gossip", body)) == (422, OTHER_DAY)

    @pytest.mark.parametrize("time", ["2024-01-01T17:00:00Z", "2024-01-03"])
    def test_of_days_past_are_a_trusted_peers_to_add(self, time: str, node: Target) -> None:
        body = json.dumps(a_bar("PAST", time=time)).encode()
        answer = node.send(request("/gossip", body))
        assert answer is not None
        assert answer.status == 200
        day = f"{parse_day(time)}T00:00:00Z"
        # The other worker may serve what it had for a moment.
        wait_for(lambda: day in node.get("/tickers?symbol=PAST").text, "the bar", node)

    @pytest.mark.parametrize("time", ["2023-12-31T16:59:59Z", "1970-01-01", "0001-01-02"])
    def test_of_days_before_the_history_are_nobodys(self, time: str, node: Target) -> None:
        body = json.dumps(a_bar("PAST", time=time)).encode()
        assert refused(node, request("/gossip", body)) == (422, TOO_OLD)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("time", NO_TIMES)
    def test_that_are_none(self, door: str, time: str, node: Target) -> None:
        body = json.dumps(a_bar(time=time)).encode()
        assert refused(node, request(door, body)) == (400, NO_TIME)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("time", TODAYS)
    def test_of_today_up_to_its_edges(self, door: str, time: str, node: Target) -> None:
        answer = node.send(request(door, json.dumps(a_bar(time=time)).encode()))
        assert answer is not None
        assert answer.status == 200
        served = node.get("/tickers?symbol=VCB&limit=1").json()["VCB"]
        assert [bar["time"] for bar in served] == [f"{TODAY}T00:00:00Z"]


# --- Numbers --------------------------------------------------------------------------------------

# What json makes an int of is limited in digits, and refused as text that can't be read.
MANY_DIGITS = "9" * 100_000
NO_PRICES = {
    "NaN": NOT_JSON,
    "Infinity": NOT_JSON,
    "-Infinity": NOT_JSON,
    "1e308": "{} must be a price above 0, at most 1000000000000.",
    "1e400": "{} must be a price above 0, at most 1000000000000.",
    "-1e400": "{} must be a price above 0, at most 1000000000000.",
    "1e-400": "{} must be a price above 0, at most 1000000000000.",
    "-0.0": "{} must be a price above 0, at most 1000000000000.",
    "-64300": "{} must be a price above 0, at most 1000000000000.",
    "9" * 400: "{} must be a price above 0, at most 1000000000000.",
    MANY_DIGITS: NOT_JSON,
    "-" + MANY_DIGITS: NOT_JSON,
    f"0.{'0' * 100_000}1": "{} must be a price above 0, at most 1000000000000.",
    "true": "{} must be a number.",
    "null": "{} must be a number.",
    '"64300"': "{} must be a number.",
    '"NaN"': "{} must be a number.",
    "[64300]": "{} must be a number.",
    "{}": "{} must be a number.",
    "0x10": NOT_JSON,
    "064300": NOT_JSON,
    "+64300": NOT_JSON,
    "64_300": NOT_JSON,
}
NO_VOLUMES = {
    "NaN": NOT_JSON,
    "1e400": "volume must be a whole number.",
    "1e308": "volume must be from 0 to 2^53 - 1.",
    "9007199254740992": "volume must be from 0 to 2^53 - 1.",
    "9007199254740993": "volume must be from 0 to 2^53 - 1.",
    "9007199254740992.0": "volume must be from 0 to 2^53 - 1.",
    "18446744073709551616": "volume must be from 0 to 2^53 - 1.",
    "9" * 400: "volume must be from 0 to 2^53 - 1.",
    MANY_DIGITS: NOT_JSON,
    "-1": "volume must be from 0 to 2^53 - 1.",
    "1000000.5": "volume must be a whole number.",
    "false": "volume must be a whole number.",
    '"1000000"': "volume must be a whole number.",
}


def named(token: str) -> str:
    return token if len(token) < 30 else f"{token[:4]}…{len(token)}"


class TestNumbers:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("name", ["open", "close"])
    @pytest.mark.parametrize("token", NO_PRICES, ids=named)
    def test_that_are_no_prices(self, door: str, name: str, token: str, node: Target) -> None:
        expected = NO_PRICES[token].replace("{}", name)
        assert refused(node, request(door, with_token(name, token))) == (400, expected)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("token", NO_VOLUMES, ids=named)
    def test_that_are_no_volumes(self, door: str, token: str, node: Target) -> None:
        body = with_token("volume", token)
        assert refused(node, request(door, body)) == (400, NO_VOLUMES[token])

    def test_the_largest_volume_is_a_bar_that_nobody_believes(self, node: Target) -> None:
        body = with_token("volume", "9007199254740991")
        assert refused(node, request("/public/gossip", body))[0] == 422


# --- JSON and encodings ---------------------------------------------------------------------------

DEEP = 100_000
TEXT = json.dumps(a_bar())
BODIES: dict[str, tuple[bytes, str]] = {
    "lists, open": (b"[" * DEEP, TOO_DEEP),
    "lists": (b"[" * DEEP + b"]" * DEEP, TOO_DEEP),
    "objects, open": (b'{"a":' * DEEP, TOO_DEEP),
    "objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, TOO_DEEP),
    "both in turn": (b'[{"a":' * DEEP, TOO_DEEP),
    "lists in a bar": (with_token("symbol", "[" * DEEP + "]" * DEEP), TOO_DEEP),
    "lists in a field that no bar has": (with_token("more", "[" * DEEP + "]" * DEEP), TOO_DEEP),
    "a key twice": (TEXT[:-1].encode() + b', "volume": -1}', "volume must be from 0 to 2^53 - 1."),
    "UTF-16": (TEXT.encode("utf-16"), NOT_JSON),
    "UTF-16, little-endian": (TEXT.encode("utf-16-le"), NOT_JSON),
    "UTF-32": (TEXT.encode("utf-32"), NOT_JSON),
    "UTF-32, big-endian": (TEXT.encode("utf-32-be"), NOT_JSON),
    "Latin-1": (
        with_token("more", '"Số é"'.replace("ố", "o")).replace("é".encode(), b"\xe9"),
        NOT_JSON,
    ),
    "no UTF-8": (with_token("more", '"@"').replace(b"@", b"\xff\xfe"), NOT_JSON),
    "UTF-8, too long": (with_token("more", '"@"').replace(b"@", b"\xc0\xaf"), NOT_JSON),
    "a surrogate, alone": (with_token("more", '"@"').replace(b"@", b"\xed\xa0\x80"), NOT_JSON),
    "a surrogate's escape as symbol": (
        with_token("symbol", r'"\ud800"'),
        "symbol must be 1 to 16 letters and digits.",
    ),
    "a surrogate's escape as time": (with_token("time", r'"\udfff"'), NO_TIME),
    "a byte order mark, twice": (b"\xef\xbb\xbf" * 2 + TEXT.encode(), NOT_JSON),
    "NUL in a string": (with_token("symbol", '"V\0B"'), NOT_JSON),
    "NUL's escape": (
        with_token("symbol", r'"VCB\u0000"'),
        "symbol must be 1 to 16 letters and digits.",
    ),
    "NUL behind": (TEXT.encode() + b"\0", NOT_JSON),
    "NULs only": (b"\0" * 1_000, NOT_JSON),
    "two bars without a list": (f"{TEXT}\n{TEXT}".encode(), NOT_JSON),
    "a comment": (TEXT.encode() + b"// VCB", NOT_JSON),
    "single quotes": (TEXT.replace('"', "'").encode(), NOT_JSON),
    "a comma too many": (f"[{TEXT},]".encode(), NOT_JSON),
    "a million spaces": (b" " * 1_000_000, NOT_JSON),
    "a symbol of a megabyte": (
        with_token("symbol", f'"{"A" * 999_000}"'),
        "symbol must be 1 to 16 letters and digits.",
    ),
    "a word": (b'"VCB"', "The body must be one bar or a list of bars."),
    "lists of nothing": (b"[" + b",".join([b"[]"] * 1_000) + b"]", "a bar must be a JSON object."),
    "nothing": (b"", EMPTY),
}
TYPES: dict[str | None, int] = {
    None: 415,
    "": 415,
    "text/plain": 415,
    "text/json": 415,
    "application/jsonp": 415,
    "application/x-www-form-urlencoded": 415,
    "multipart/form-data; boundary=x": 415,
    "application/xml": 415,
    "application/json\x00": 400,
    "application/json\r\nContent-Type: application/json": 400,
}


class TestJson:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("name", BODIES)
    def test_that_is_none_or_no_gossip(self, door: str, name: str, node: Target) -> None:
        body, expected = BODIES[name]
        assert refused(node, request(door, body)) == (400, expected)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("content_type", TYPES)
    def test_of_another_type(self, door: str, content_type: str | None, node: Target) -> None:
        data = request(door, TEXT.encode(), content_type=content_type)
        assert refused(node, data)[0] == TYPES[content_type]

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip"])
    def test_compressed_isnt_taken_apart(self, door: str, coding: str, node: Target) -> None:
        data = request(door, gzip.compress(b"\0" * 10_000_000), f"Content-Encoding: {coding}")
        assert refused(node, data) == (415, "Send the body without compression")

    @pytest.mark.parametrize("door", DOORS)
    def test_a_bomb_that_doesnt_say_so(self, door: str, node: Target) -> None:
        assert refused(node, request(door, gzip.compress(b"\0" * 10_000_000))) == (400, NOT_JSON)


# --- Framing --------------------------------------------------------------------------------------


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


BAR = TEXT.encode()
# Lines that say how long the body is, and what a server makes of them.
FRAMES: dict[str, tuple[list[str | bytes], bytes, int, str]] = {
    "longer than it is": (["Content-Length: 1000"], BAR, 408, EARLY),
    "a byte longer": ([f"Content-Length: {len(BAR) + 1}"], BAR, 408, EARLY),
    "shorter than it is": ([f"Content-Length: {len(BAR) - 1}"], BAR, 400, NOT_JSON),
    "none": ([], BAR, 400, EMPTY),
    "of nothing": (["Content-Length: 0"], BAR, 400, EMPTY),
    "negative": (["Content-Length: -5"], BAR, 400, ""),
    "with a sign": ([f"Content-Length: +{len(BAR)}"], BAR, 400, ""),
    "in hexadecimal": ([f"Content-Length: 0x{len(BAR):x}"], BAR, 400, ""),
    "a fraction": ([f"Content-Length: {len(BAR)}.0"], BAR, 400, ""),
    "another script's digit": ([b"Content-Length: \xb2"], BAR, 400, ""),
    "of 5,000 digits": ([f"Content-Length: {'9' * 5_000}"], BAR, 400, ""),
    "twice": ([f"Content-Length: {len(BAR)}"] * 2, BAR, 400, ""),
    "twice, differing": ([f"Content-Length: {len(BAR)}", "Content-Length: 0"], BAR, 400, ""),
    "a list": ([f"Content-Length: {len(BAR)}, {len(BAR)}"], BAR, 400, ""),
    "more than a body may have": (["Content-Length: 1000001"], BAR, 413, TOO_LARGE),
    "10 MB": (["Content-Length: 10000000"], b" " * 10_000_000, 413, TOO_LARGE),
    "chunks": (["Transfer-Encoding: chunked"], in_chunks(BAR, 10), 400, EMPTY),
    "chunks of 10 MB": (
        ["Transfer-Encoding: chunked"],
        in_chunks(b" " * 10_000_000, 100_000),
        400,
        EMPTY,
    ),
    "compressed chunks": (["Transfer-Encoding: gzip, chunked"], in_chunks(BAR, 10), 400, EMPTY),
    "both": (
        [f"Content-Length: {len(BAR)}", "Transfer-Encoding: chunked"],
        in_chunks(BAR, 10),
        400,
        "",
    ),
    "both, the other way": (
        ["Transfer-Encoding: chunked", f"Content-Length: {len(BAR)}"],
        BAR,
        400,
        "",
    ),
    "chunks, twice": (["Transfer-Encoding: chunked"] * 2, in_chunks(BAR, 10), 400, ""),
    "chunks, then identity": (["Transfer-Encoding: chunked, identity"], in_chunks(BAR, 9), 400, ""),
    "identity": (["Transfer-Encoding: identity", f"Content-Length: {len(BAR)}"], BAR, 400, ""),
    "an unknown coding": (["Transfer-Encoding: xchunked"], in_chunks(BAR, 10), 501, ""),
    "a space before the colon": (
        [f"Content-Length: {len(BAR)}", "Transfer-Encoding : chunked"],
        BAR,
        400,
        "",
    ),
    "folded": (["Transfer-Encoding:\r\n chunked"], in_chunks(BAR, 10), 400, ""),
    "a bare line feed": ([f"Content-Length: {len(BAR)}\nTransfer-Encoding: chunked"], BAR, 400, ""),
}
HIDDEN = request("/gossip", json.dumps(a_bar("HIDDEN")).encode())


def answers_of(node: Target, data: bytes) -> list[int]:
    """The statuses of all answers on one connection, which the client ends after ``data``."""
    received = b""
    with connect(node.port) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65_536):
                received += more
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


class TestFraming:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("name", FRAMES)
    def test_that_lies_or_says_nothing(self, door: str, name: str, node: Target) -> None:
        lines, body, status, detail = FRAMES[name]
        assert refused(node, head(door, *lines) + body, half_close=True) == (status, detail)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize(
        "lines",
        [
            ["Content-Length: 0", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 5"],
            ["Transfer-Encoding:\tchunked", "Content-Length: 5"],
            ["Transfer-Encoding: \x0bchunked", "Content-Length: 5"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
            ["Content-Length: 5", "Content-Length: 0"],
            ["Content-Length: 5\nTransfer-Encoding: chunked"],
        ],
    )
    def test_that_hides_a_request_ends_the_connection(
        self, door: str, lines: list[str], node: Target
    ) -> None:
        before = node.state()
        assert answers_of(node, head(door, *lines) + b"0\r\n\r\n" + HIDDEN) in ([400], [501])
        assert node.state() == before

    @pytest.mark.parametrize(
        ("path", "options", "status"),
        [
            ("/gossip", {"token": False}, 401),
            ("/gossip", {"content_type": "text/plain"}, 415),
            ("/public/gossip", {"content_type": None}, 415),
            ("/tickers", {}, 405),
            ("/nowhere", {}, 404),
        ],
    )
    def test_a_body_that_nobody_reads_is_never_the_next_request(
        self, path: str, options: dict[str, Any], status: int, node: Target
    ) -> None:
        before = node.state()
        data = request(path, HIDDEN, **options)
        health = b"GET /tickers/group HTTP/1.1\r\nHost: node.test\r\n\r\n"
        assert answers_of(node, data + health) in ([status], [status, 200])
        assert node.state() == before

    @pytest.mark.parametrize("door", DOORS)
    def test_headers_beyond_measure(self, door: str, node: Target) -> None:
        many = [f"X-{number}: 1" for number in range(200)]
        assert refused(node, request(door, BAR, *many))[0] == 431
        assert refused(node, request(door, BAR, f"X-Long: {'a' * 100_000}"))[0] == 431
        assert refused(node, request(f"{door}?{'a' * 100_000}", BAR))[0] == 414


def test_memory_is_bounded_whatever_is_sent(node: Target) -> None:
    """Each body that costs the most, over and over."""
    attacks = [
        data
        for door in DOORS
        for data in (
            request(door, BODIES["objects"][0]),
            request(door, BODIES["lists of nothing"][0]),
            request(door, with_token("open", MANY_DIGITS)),
            request(door, b"[" + b",".join([b"{}"] * 300_000) + b"]"),
            request(door, gzip.compress(b"\0" * 10_000_000), "Content-Encoding: gzip"),
            head(door, "Content-Length: 10000000") + b" " * 10_000_000,
            head(door, "Transfer-Encoding: chunked") + in_chunks(b" " * 10_000_000, 100_000),
        )
    ]
    before = node.state()
    for _ in range(12):  # every thread of every process has seen each
        for data in attacks:
            node.send(data)
    settled = node.resident()
    for _ in range(12):
        for data in attacks:
            answer = node.send(data)
            assert answer is not None
            assert 400 <= answer.status < 500
    # Some 170 bodies of a megabyte or more.
    assert node.resident() - settled < 40 * MEGABYTES
    assert node.state() == before


# --- Slow clients ---------------------------------------------------------------------------------

# What each has sent before it drips: gunicorn's kernel hands over who sent anything.
STAGES = {
    "nothing": b"",
    "a line": b"POST /gossip HTTP/1.1\r\n",
    "a header": b"POST /gossip HTTP/1.1\r\nHost: node.test\r\nX-Slow: ",
    "the headers": head("/gossip", "Content-Length: 900000"),
    "the headers of a public post": head("/public/gossip", "Content-Length: 900000"),
    "the headers without a token": head("/gossip", "Content-Length: 900000", token=False),
    "a chunk": head("/gossip", "Transfer-Encoding: chunked") + b"fffff\r\n",
}


@contextmanager
def dripping(port: int, first: bytes, connections: int) -> Iterator[list[socket.socket]]:
    """Connections that send ``first``, then a byte now and then for as long as they are let."""
    clients = [connect(port) for _ in range(connections)]
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.2):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"1")

    for client in clients:
        client.sendall(first)
    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        yield clients
    finally:
        ended.set()
        dripper.join()
        for client in clients:
            client.close()


def is_ended(client: socket.socket) -> bool:
    """Whether the node has ended its side of a connection."""
    client.setblocking(False)
    try:
        while client.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


class TestSlowClients:
    @pytest.mark.parametrize("stage", STAGES)
    def test_more_of_them_than_threads_hold_up_nobody(self, stage: str, node: Target) -> None:
        before = node.state()[1]
        with dripping(node.port, STAGES[stage], 2 * WORKERS * THREADS):
            for _ in range(3):
                # Two rounds of them may be before it at one worker, at three seconds each.
                assert node.works(within=15)
        assert node.state()[1] == before

    def test_one_free_thread_is_found(self, node: Target) -> None:
        """Whichever worker has it: one without accepts nothing."""
        for _ in range(5):
            with contextlib.ExitStack() as stack:
                for _ in range(WORKERS * THREADS - 1):
                    client = stack.enter_context(connect(node.port))
                    client.sendall(head("/gossip", "Content-Length: 1000"))
                began = time.monotonic()
                assert node.works()
                assert time.monotonic() - began < timeouts.READ_WITHIN_WHEN_BUSY / 2

    @pytest.mark.slow
    @pytest.mark.parametrize("stage", ["a line", "the headers", "the headers without a token"])
    def test_all_are_cut_off(self, stage: str, node: Target) -> None:
        with dripping(node.port, STAGES[stage], 2 * WORKERS * THREADS) as clients:
            wait_for(lambda: all(map(is_ended, clients)), "them to be cut off", node, seconds=40)

    def test_a_body_that_nobody_wants_is_waited_for_by_nobody(self, node: Target) -> None:
        """Its head was refused, and answered at once; the threads are free again."""
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                clients = [stack.enter_context(connect(node.port)) for _ in range(4 * THREADS)]
                for client in clients:
                    client.sendall(head("/public/gossip", "Content-Length: 2000000"))
                answers = [read_answer(client) for client in clients]
                assert {answer.status for answer in answers if answer} == {413}
            assert node.works(within=timeouts.READ_WITHIN_WHEN_BUSY)

    def test_one_whose_body_is_refused_can_send_it_and_reads_why(self, node: Target) -> None:
        """Many clients send all before they read anything, and give up when sending fails."""
        with connect(node.port) as client:
            client.sendall(head("/gossip", "Content-Length: 2000000"))
            for _ in range(20):
                threading.Event().wait(4 * timeouts.DRAIN_WITHIN / 20)
                client.sendall(b" " * 100_000)
            answer = read_answer(client)
        assert answer is not None
        assert answer.status == 413

    def test_one_alone_is_waited_for_and_taken(self, node: Target) -> None:
        """Longer than when others wait."""
        body = json.dumps([a_bar("SLOW")] * 4).encode()
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        pause = 1.5 * timeouts.READ_WITHIN_WHEN_BUSY / len(pieces)
        with connect(node.port) as client:
            client.sendall(head("/gossip", f"Content-Length: {len(body)}"))
            for piece in pieces:
                threading.Event().wait(pause)
                client.sendall(piece)
            answer = read_answer(client)
        assert answer is not None
        assert answer.status == 200

    @pytest.mark.slow
    @pytest.mark.parametrize("door", DOORS)
    def test_one_that_stops_is_told_so(self, door: str, node: Target) -> None:
        before = node.state()
        with connect(node.port) as client:
            client.sendall(head(door, "Content-Length: 900000") + BAR)
            answer = read_answer(client)
        assert answer is not None
        assert (answer.status, answer.detail) == (408, EARLY)
        assert node.state() == before

    def test_those_that_leave_their_connection_open_hold_up_nobody(self, node: Target) -> None:
        """gunicorn waits for a client to close first (RFC 9112 9.6): for all at once."""
        leaving = [connect(node.port) for _ in range(100)]
        for client in leaving:
            client.sendall(request("/gossip", b"{", "Connection: close"))
        answers = [read_answer(client) for client in leaving]
        assert {answer.status for answer in answers if answer} == {400}
        assert node.works(within=5)
        wait_for(lambda: all(map(is_ended, leaving)), "them to be closed", node)
        for client in leaving:
            client.close()


@pytest.mark.slow
def test_clients_that_read_nothing_are_left_in_time(tmp_path: Path) -> None:
    """More of them than threads, each with more answers to come than all buffers hold."""
    patience = "from proxy_site.serving import timeouts\ntimeouts.ANSWER_WITHIN = 2.0"
    asked = b"GET /tickers HTTP/1.1\r\nHost: node.test\r\n\r\n" * 30
    with (
        target(tmp_path, conf=patience, HISTORY_START="1950-01-01") as node,
        contextlib.ExitStack() as stack,
    ):
        fill(node, bars=20_000)
        readers = [stack.enter_context(connect(node.port)) for _ in range(3 * WORKERS * THREADS)]
        for reader in readers:
            reader.sendall(asked)
        for _ in range(100):  # by then all of them have filled their buffers
            assert node.works(within=15)


@pytest.mark.slow
def test_an_answer_that_takes_the_node_long_is_waited_for(tmp_path: Path) -> None:
    """It is the client who is given a time: a market of millions of bars is read first."""
    slowly = """
import time
from proxy_site.serving import timeouts
timeouts.ANSWER_WITHIN = 1.0

def post_worker_init(worker):
    from gossip import wire
    decode = wire.decode
    wire.decode = lambda body: (time.sleep(3.5), decode(body))[1]
"""
    with target(tmp_path, conf=slowly) as node, connect(node.port) as client:
        client.sendall(request("/gossip", BAR))
        answer = read_answer(client)
    assert answer is not None
    assert answer.status == 200


def test_a_connection_is_kept_however_long_its_thread_waits_for_its_turn(tmp_path: Path) -> None:
    """No body is left, so its time doesn't count."""
    no_time = "from proxy_site.serving import timeouts\ntimeouts.DRAIN_WITHIN = 0.0"
    with target(tmp_path, conf=no_time) as node, connect(node.port) as client:
        for data in (request("/gossip", BAR), b"GET /tickers HTTP/1.1\r\nHost: node.test\r\n\r\n"):
            for _ in range(2):
                client.sendall(data)
                answer = read_answer(client)
                assert answer is not None
                assert answer.status == 200


def test_connections_that_are_kept_busy_keep_nobody_out(node: Target) -> None:
    """More than there are threads, each with its next request waiting whenever one is answered."""
    path = b"GET /tickers?symbol=VCB HTTP/1.1\r\nHost: node.test\r\n"
    asked = (path + b"\r\n") * 10_000 + path + b"Connection: close\r\n\r\n"
    given_up = threading.Event()

    def read_all(client: socket.socket) -> None:
        sending = threading.Thread(target=send_all, args=[client])
        sending.start()
        while not given_up.is_set() and client.recv(MEGABYTES):
            pass
        client.shutdown(socket.SHUT_RDWR)
        sending.join()

    def send_all(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.sendall(asked)

    readers = 2 * WORKERS * THREADS
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(node.port)) for _ in range(readers)]
        pool = stack.enter_context(ThreadPoolExecutor(readers))
        reading = [pool.submit(read_all, client) for client in clients]
        try:
            for _ in range(5):
                assert node.works(within=30)
            assert not any(reader.done() for reader in reading)
        finally:
            given_up.set()


def fill(node: Target, *, bars: int) -> None:
    """History by the token door: one bar a day."""
    start = dt.date(1950, 1, 1)
    days = [(start + dt.timedelta(days=number)).isoformat() for number in range(bars)]
    for first in range(0, bars, 1_000):
        part = [a_bar("OLD", time=day) for day in days[first : first + 1_000]]
        answer = node.send(request("/gossip", json.dumps(part).encode()))
        assert answer is not None
        assert answer.status == 200


@pytest.fixture(scope="module")
def front(node: Target) -> Iterator[Front]:
    with nginx(node.folder / "front", node.port) as front:
        yield front


@needs_nginx
class TestSlowClientsBehindNginx:
    @pytest.mark.parametrize("stage", STAGES)
    def test_reach_no_node(self, stage: str, front: Front, node: Target) -> None:
        with dripping(front.port, STAGES[stage], 4 * WORKERS * THREADS):
            for _ in range(5):
                answer = send(front.port, request("/gossip", BAR), source="127.0.0.9")
                assert answer is not None
                assert answer.status == 200
                assert node.works(within=timeouts.READ_WITHIN_WHEN_BUSY)
