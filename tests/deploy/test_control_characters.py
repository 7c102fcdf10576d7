"""Control characters in every place of a request line, through the real nginx before a stub: none
gets a read past the limit of reads, and none an answer without the headers of its kind."""

import itertools
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.front import Front, Seen, Stub, needs_nginx

pytestmark = needs_nginx

CONTROLS = [*range(0x20), 0x7F]
READS = ("/tickers", "/tickers/group", "/tickers/changes")
OTHERS = ("/", "/health", "/admin/login/", "/static/home.css")
PLACES = (
    "{c}GET {path} HTTP/1.1",
    "G{c}ET {path} HTTP/1.1",
    "GET{c} {path} HTTP/1.1",
    "GET{c}{path} HTTP/1.1",
    "GET {c}{path} HTTP/1.1",
    "GET /{c}{path} HTTP/1.1",
    "GET {middle} HTTP/1.1",
    "GET {path}{c} HTTP/1.1",
    "GET {path}{c}{c} HTTP/1.1",
    "GET {path}/{c} HTTP/1.1",
    "GET {path}{c}/../ HTTP/1.1",
    "GET {path}{c}?limit=5 HTTP/1.1",
    "GET {path}?{c} HTTP/1.1",
    "GET {path}?symbol={c}VCB HTTP/1.1",
    "GET {path}?symbol=VCB{c}&all=true HTTP/1.1",
    "GET {path}?limit=5{c} HTTP/1.1",
    "GET {path}?limit=5{c}0000 HTTP/1.1",
    "GET {path}?{c}limit=5 HTTP/1.1",
    "GET {path}?all=false{c} HTTP/1.1",
    "GET {path}{c}HTTP/1.1",
    "GET {path} {c}HTTP/1.1",
    "GET {path} HT{c}TP/1.1",
    "GET {path} HTTP/{c}1.1",
    "GET {path} HTTP/1.{c}1",
    "GET {path} HTTP/1.1{c}",
    "GET http://api.example.com{path}{c} HTTP/1.1",
    "GET http://api.example.com{c}{path} HTTP/1.1",
)


def request_line(place: str, path: str, written: str) -> bytes:
    middle = f"{path[:3]}{written}{path[3:]}"
    return place.format(path=path, c=written, middle=middle).encode("latin-1")


def lines(path: str) -> Iterator[bytes]:
    """Every place, raw and percent-encoded in both cases."""
    for place, control in itertools.product(PLACES, CONTROLS):
        for written in {chr(control), f"%{control:02x}", f"%{control:02X}"}:
            yield request_line(place, path, written)


@dataclass
class Answer:
    """``status`` None: nginx hung up without a word."""

    status: int | None
    headers: dict[str, str]
    body: bytes


def ask(front: Front, line: bytes, *, source: str) -> Answer:
    with socket.create_connection(
        ("127.0.0.1", front.port), timeout=20, source_address=(source, 0)
    ) as connection:
        connection.sendall(line + b"\r\nHost: api.example.com\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while more := connection.recv(65_536):
                received += more
        except ConnectionResetError:
            pass  # nginx hung up before it had read the rest, which begins with a control character
    if not received:
        return Answer(None, {}, b"")
    head, separator, body = received.partition(b"\r\n\r\n")
    assert separator, f"{line!r} is answered without headers: {received[:200]!r}"
    status, *fields = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", status)
    assert match, f"{line!r} is answered {status!r}"
    headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
    return Answer(int(match[1]), headers, body)


def is_read(path: bytes) -> bool:
    """Whether a node that is careless with control characters might serve a market there."""
    bare = re.sub(rb"[\x00-\x20\x7f]", b"", unquote_to_bytes(path.partition(b"?")[0]))
    return re.sub(rb"/+", b"/", bare).decode("latin-1") in READS


def is_small(seen: Seen) -> bool:
    """As deploy/nginx-site.conf has it: symbols by name, at most 99 bars each, or newest bars."""
    query = seen.path.partition("?")[2]
    return bool(re.search(r"&symbol=\w|&limit=\d{1,2}(&|\Z)|^&all=(false|0)\Z", query))


def is_literal(seen: Seen) -> bool:
    return seen.path.partition("?")[0] in READS


class TestReads:
    @pytest.mark.parametrize("path", READS)
    def test_reach_the_node_by_their_literal_address_or_not_at_all(
        self, path: str, front: Front, stub: Stub
    ) -> None:
        for line in lines(path):
            before = len(stub.seen)
            answer = ask(front, line, source="127.0.0.1")
            for seen in stub.seen[before:]:
                assert seen.method == "GET", line
                assert not re.search(r"[\x00-\x20\x7f]", seen.path), line
                assert is_literal(seen) or not is_read(seen.path.encode("latin-1")), line
            self.has_the_headers_of_its_kind(answer, line)

    def has_the_headers_of_its_kind(self, answer: Answer, line: bytes) -> None:
        if answer.status is None:
            return
        assert "cache-control" in answer.headers, line
        if answer.status == 200:
            assert answer.headers["x-data-age"] == "0", line
            assert "etag" in answer.headers, line
        else:
            assert answer.headers["content-type"] == "application/json", line
            assert answer.headers["cache-control"] == "no-store", line
            assert b'"code":' in answer.body, line

    def test_of_the_whole_market_stay_within_its_limit(self, front: Front, stub: Stub) -> None:
        """One stranger tries them all: ten at once, and one a second."""
        begun = time.monotonic()
        statuses = [
            ask(front, line, source="127.0.0.61").status
            for line in itertools.chain(lines("/tickers"), lines("/tickers/group"))
        ]
        asked = [seen for seen in stub.seen if seen.headers["x-forwarded-for"] == "127.0.0.61"]
        whole = [seen for seen in asked if is_literal(seen) and not is_small(seen)]
        assert len(whole) <= 12 + time.monotonic() - begun
        assert 429 in statuses
        assert set(statuses) <= {None, 200, 400, 404, 405, 429, 505}


class TestOtherAddresses:
    @pytest.mark.parametrize("path", OTHERS)
    def test_get_no_control_character_through(self, path: str, front: Front, stub: Stub) -> None:
        for line in lines(path):
            before = len(stub.seen)
            ask(front, line, source="127.0.0.1")
            for seen in stub.seen[before:]:
                path_alone = unquote_to_bytes(seen.path.partition("?")[0])
                assert not re.search(rb"[\x00-\x1f\x7f]", path_alone), line
                assert not is_read(path_alone), line


class TestVersion:
    @pytest.mark.parametrize("path", [*READS, *OTHERS])
    @pytest.mark.parametrize("end", ["", " ", "\n"])
    def test_none_is_hung_up_on(self, path: str, end: str, front: Front, stub: Stub) -> None:
        """An answer of HTTP/0.9 has no headers, so nobody would learn its age."""
        # What nginx still hands on of another test's requests is of another address.
        source = "127.0.0.62"
        assert ask(front, f"GET {path}{end}".encode(), source=source).status in (None, 400)
        assert [seen for seen in stub.seen if seen.headers["x-forwarded-for"] == source] == []
