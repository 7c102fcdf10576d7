"""A request ends in time, whatever the upstream does: tried on a real server on loopback."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from simulator.loopback import LoopbackServer
from tickers import bounded_http
from tickers.bounded_http import (
    EncodingError,
    Limits,
    Reply,
    StoppedError,
    TimedOutError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
    new_session,
)

Behaviour = Callable[["Handler"], None]


class Upstream(LoopbackServer):
    """Behaves as ``behave`` says; ``over`` ends whatever it is doing."""

    behave: Behaviour

    def __init__(self) -> None:
        super().__init__(Handler)
        self.over = threading.Event()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.port}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.behave(self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server
        server.over.set()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with new_session() as session:
        yield session


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the upstream, as often as it is called; times are seconds."""

    session: requests.Session
    url: str

    def __call__(
        self,
        stop: threading.Event | None = None,
        *,
        read_timeout: float = 5,
        total_timeout: float = 10,
        stop_grace: float = 3,
        max_body: int = 64_000_000,
    ) -> Reply:
        return bounded_http.ask(
            self.session,
            "POST",
            self.url,
            json={"symbols": ["VCB"]},
            limits=Limits(
                read_timeout=read_timeout,
                total_timeout=total_timeout,
                stop_grace=stop_grace,
                max_body=max_body,
            ),
            stop=stop or threading.Event(),
        )


@pytest.fixture
def ask(upstream: Upstream, session: requests.Session) -> Ask:
    return Ask(session, upstream.url)


def answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    *,
    length: int | None = None,
    **headers: str,
) -> None:
    """``length`` is what the headers announce, the body's own unless given."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def drip(handler: Handler, pieces: Iterator[bytes] | list[bytes], pause: float = 0.02) -> None:
    for piece in pieces:
        if handler.server.over.wait(pause):
            return
        handler.wfile.write(piece)


def forever(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def request_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "http-exchange"]


def threads_end() -> bool:
    for thread in request_threads():
        thread.join(5)
    return not request_threads()


class TestAnswers:
    def test_a_reply_comes_with_status_headers_and_body(self, upstream: Upstream, ask: Ask) -> None:
        upstream.behave = lambda handler: answer(handler, 200, b"[]", X_Test="yes")
        reply = ask()
        assert (reply.status, reply.body, reply.headers["x-test"]) == (200, b"[]", "yes")

    def test_an_answer_in_pieces_is_put_together(self, upstream: Upstream, ask: Ask) -> None:
        def behave(handler: Handler) -> None:
            answer(handler, 200, b"", length=200000)
            drip(handler, [b"x" * 50_000] * 4, pause=0.01)

        upstream.behave = behave
        assert len(ask().body) == 200_000

    def test_the_connection_is_kept_also_after_an_error(self, upstream: Upstream, ask: Ask) -> None:
        statuses = iter([200, 503, 429, 200])
        upstream.behave = lambda handler: answer(handler, next(statuses), b"[]")
        assert [ask().status for _ in range(4)] == [200, 503, 429, 200]
        assert upstream.connections == 1

    def test_an_error_comes_with_the_start_of_its_body(self, upstream: Upstream, ask: Ask) -> None:
        upstream.behave = lambda handler: answer(handler, 400, b"a" * 100_000)
        reply = ask()
        assert (reply.status, reply.body) == (400, b"a" * 4_096)

    def test_an_error_whose_body_breaks_off_is_one_all_the_same(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        def behave(handler: Handler) -> None:
            answer(handler, 400, b"[1, 2", length=50)
            handler.close_connection = True

        upstream.behave = behave
        assert ask().status == 400

    def test_a_redirect_is_not_followed(self, upstream: Upstream, ask: Ask) -> None:
        upstream.behave = lambda handler: answer(handler, 302, b"", Location="/elsewhere")
        assert ask().status == 302

    def test_no_cookie_is_kept(
        self, upstream: Upstream, ask: Ask, session: requests.Session
    ) -> None:
        upstream.behave = lambda handler: answer(handler, 200, b"[]", Set_Cookie="a=b")
        ask()
        assert not session.cookies


class TestBrokenAnswers:
    def test_a_body_shorter_than_announced_is_truncated(self, upstream: Upstream, ask: Ask) -> None:
        def behave(handler: Handler) -> None:
            answer(handler, 200, b"[1, 2", length=50)
            handler.close_connection = True

        upstream.behave = behave
        with pytest.raises(TruncatedError, match="broke its answer off"):
            ask()

    def test_a_body_that_only_claims_to_be_compressed_is_truncated(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        upstream.behave = lambda handler: answer(handler, 200, b"[]", Content_Encoding="gzip")
        with pytest.raises(TruncatedError, match="decompressed"):
            ask()

    def test_an_upstream_that_hangs_up_without_an_answer_is_unreachable(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        def behave(handler: Handler) -> None:
            handler.close_connection = True

        upstream.behave = behave
        with pytest.raises(UnreachableError, match="no answer"):
            ask()

    def test_an_upstream_where_nobody_listens_is_unreachable(
        self, session: requests.Session
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        stop = threading.Event()
        with pytest.raises(UnreachableError, match="ConnectionRefusedError"):
            bounded_http.ask(session, "POST", url, json={}, limits=Limits(), stop=stop)

    def test_a_body_larger_than_any_answer_is_refused(self, upstream: Upstream, ask: Ask) -> None:
        upstream.behave = lambda handler: answer(handler, 200, b"x" * 1_001)
        with pytest.raises(TooLargeError, match="larger than 1000 bytes"):
            ask(max_body=1_000)


class TestSlowAnswers:
    def silent(self, handler: Handler) -> None:
        handler.server.over.wait(20)

    def slow_headers(self, handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        drip(handler, forever(b"x"))

    def slow_body(self, handler: Handler) -> None:
        answer(handler, 200, b"", length=1000000)
        drip(handler, forever(b" "))

    def test_silence_ends_with_the_read_timeout(self, upstream: Upstream, ask: Ask) -> None:
        upstream.behave = self.silent
        with pytest.raises(TimedOutError, match=r"sent nothing for 0\.1 s"):
            ask(read_timeout=0.1)

    def test_silence_in_the_middle_of_a_body_ends_with_the_read_timeout(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        def behave(handler: Handler) -> None:
            answer(handler, 200, b"[1,", length=50)
            self.silent(handler)

        upstream.behave = behave
        with pytest.raises(TimedOutError, match=r"sent nothing for 0\.1 s"):
            ask(read_timeout=0.1)

    @pytest.mark.parametrize("part", ["slow_headers", "slow_body", "silent"])
    def test_no_answer_takes_longer_than_the_total_timeout(
        self, upstream: Upstream, ask: Ask, part: str
    ) -> None:
        upstream.behave = getattr(self, part)
        before = time.monotonic()
        with pytest.raises(TimedOutError, match=r"wasn't complete after 0\.3 s"):
            ask(total_timeout=0.3)
        assert time.monotonic() - before < 3
        assert threads_end(), "the request goes on in a thread"

    @pytest.mark.parametrize("part", ["slow_headers", "slow_body", "silent"])
    def test_a_stopping_node_doesnt_wait_for_a_slow_answer(
        self, upstream: Upstream, ask: Ask, part: str
    ) -> None:
        stop = threading.Event()
        begun = threading.Event()

        def behave(handler: Handler) -> None:
            begun.set()
            getattr(self, part)(handler)

        upstream.behave = behave

        def stop_it() -> None:
            begun.wait(5)
            stop.set()

        stopper = threading.Thread(target=stop_it)
        stopper.start()
        before = time.monotonic()
        with pytest.raises(StoppedError):
            ask(stop, stop_grace=0.1)
        assert time.monotonic() - before < 3
        assert threads_end(), "the request goes on in a thread"
        stopper.join()

    def test_a_stopping_node_takes_the_answer_in_hand(self, upstream: Upstream, ask: Ask) -> None:
        stop = threading.Event()

        def behave(handler: Handler) -> None:
            stop.set()
            handler.server.over.wait(0.2)
            answer(handler, 200, b"[]")

        upstream.behave = behave
        assert ask(stop).body == b"[]"

    def test_a_name_service_that_doesnt_answer_holds_nobody(
        self, session: requests.Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(20) and [])
        before = time.monotonic()
        with pytest.raises(TimedOutError):
            bounded_http.ask(
                session,
                "GET",
                "http://node.invalid/",
                limits=Limits(total_timeout=0.2),
                stop=threading.Event(),
            )
        assert time.monotonic() - before < 3
        release.set()
        assert threads_end(), "the request goes on in a thread"


class TestRequests:
    """What a session from here doesn't do."""

    def test_netrc_is_not_read(
        self, upstream: Upstream, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        seen: list[Message] = []

        def behave(handler: Handler) -> None:
            seen.append(handler.headers)
            answer(handler, 200, b"[]")

        upstream.behave = behave
        ask()
        assert "Authorization" not in seen[0]
        assert seen[0]["Accept-Encoding"] == "gzip"

    def test_a_long_body_of_an_error_is_not_read_to_its_end(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        upstream.behave = lambda handler: answer(handler, 503, b"x" * 10_000)
        assert [ask().status for _ in range(2)] == [503, 503]
        assert upstream.connections == 2

    def test_a_status_is_worth_more_than_the_body_that_never_follows(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        def behave(handler: Handler) -> None:
            answer(handler, 503, b"", length=100)
            drip(handler, forever(b"x"), pause=0.2)

        upstream.behave = behave
        assert ask(total_timeout=0.3).status == 503
        assert threads_end(), "the request goes on in a thread"

    def test_an_encoding_that_wasnt_asked_for_is_refused(
        self, upstream: Upstream, ask: Ask
    ) -> None:
        upstream.behave = lambda handler: answer(handler, 200, b"[]", Content_Encoding="zstd")
        with pytest.raises(EncodingError, match="wasn't asked for"):
            ask()

    def test_it_goes_on_after_an_exchange_that_was_left(self, upstream: Upstream, ask: Ask) -> None:
        def hang(handler: Handler) -> None:
            handler.server.over.wait(20)

        upstream.behave = hang
        with pytest.raises(TimedOutError):
            ask(total_timeout=0.1)
        upstream.behave = lambda handler: answer(handler, 200, b"[]")
        assert ask().body == b"[]"
