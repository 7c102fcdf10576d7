"""An outbound proxy: the upstream, core networks and peers are all asked through it, within the
limits that hold without one. The proxy is a real one, on loopback."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from urllib.parse import urlsplit

import pytest

from tests.support.asking import USERS
from tests.support.forward_proxy import ForwardProxy, tls
from tests.support.proxies import BadPeer, Door, Reply, Request, bad_peer, hear
from tickers import bounded_http
from tickers.bounded_connection import BoundedConnection
from tickers.bounded_http import Limits, TimedOutError, TooLargeError, new_session
from tickers.outbound_proxy import OutboundProxy

HOST = "node-b.test"
SECRET = "p@ss/w#rd"
LOGIN = "me:p%40ss%2Fw%23rd"
PATHS = {
    "upstream": "/chart/OHLCChart/gap-chart",
    "core": "/tickers?authority=trusted&all=true",
    "peer": "/public/gossip",
}
WITHIN = 10.0  # seconds

everybody = pytest.mark.parametrize("user", USERS)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def door(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The server at {scheme}://node-b.test, as the proxy knows it."""
    context = None
    if scheme == "https":
        context, authority = tls(HOST, tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with Door(lambda _: Reply(200, b"[]"), tls=context) as door:
        yield door


@pytest.fixture
def proxy(door: Door) -> Iterator[ForwardProxy]:
    with ForwardProxy({HOST: door.port}) as proxy:
        yield proxy


@pytest.fixture
def through(
    proxy: ForwardProxy, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Names a proxy for all that is asked by the test's scheme."""

    def name(url: str) -> None:
        monkeypatch.setenv(f"{scheme}_proxy".upper(), url)

    name(proxy.url)
    return name


@everybody
@pytest.mark.usefixtures("through")
class TestEverybody:
    def test_asks_through_the_proxy(
        self, user: str, scheme: str, proxy: ForwardProxy, door: Door
    ) -> None:
        USERS[user](f"{scheme}://{HOST}", WITHIN)
        assert [request.path for request, _ in door.seen] == [PATHS[user]]
        method = "GET" if user == "core" else "POST"
        assert proxy.seen == [
            ("CONNECT", f"{HOST}:443")
            if scheme == "https"
            else (method, f"http://{HOST}{PATHS[user]}")
        ]

    def test_asks_directly_what_no_proxy_names_and_loopback_only_then(
        self,
        user: str,
        scheme: str,
        proxy: ForwardProxy,
        door: Door,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        url = f"{scheme}://127.0.0.1:{door.port}"
        USERS[user](url, WITHIN)
        assert len(proxy.seen) == 1
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8")
        direct = USERS[user](url, WITHIN)
        assert len(proxy.seen) == 1
        assert "proxy" not in direct

    def test_tells_the_proxy_its_login(
        self,
        user: str,
        scheme: str,
        proxy: ForwardProxy,
        door: Door,
        through: Callable[[str], None],
    ) -> None:
        proxy.login = f"me:{SECRET}"
        through(f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        USERS[user](f"{scheme}://{HOST}", WITHIN)
        assert len(door.seen) == 1

    def test_names_a_proxy_that_refuses_and_never_its_password(
        self,
        user: str,
        scheme: str,
        proxy: ForwardProxy,
        through: Callable[[str], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        proxy.login = "other:login"
        through(f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        outcome = USERS[user](f"{scheme}://{HOST}", WITHIN)
        assert f"the proxy 127.0.0.1:{proxy.port} answered 407" in outcome
        assert "HTTPS_PROXY" in outcome
        for secret in (SECRET, LOGIN.partition(":")[2]):
            assert secret not in outcome + caplog.text

    def test_names_a_proxy_that_isnt_there(
        self, user: str, scheme: str, proxy: ForwardProxy, through: Callable[[str], None]
    ) -> None:
        through("http://127.0.0.1:9")
        outcome = USERS[user](f"{scheme}://{HOST}", WITHIN)
        assert "through the proxy 127.0.0.1:9" in outcome
        assert "refused" in outcome.lower()


class TestLimits:
    """What holds of a server holds of one behind a proxy, and of the proxy."""

    @pytest.mark.usefixtures("through")
    def test_an_answer_through_a_proxy_takes_no_longer_than_it_may(
        self, scheme: str, door: Door
    ) -> None:
        over = threading.Event()

        def hang(request: Request) -> Reply:
            over.wait(20)
            return Reply(200)

        door.answer = hang
        url = f"{scheme}://{HOST}/"
        with pytest.raises(TimedOutError), new_session() as session:
            bounded_http.ask(
                session, "GET", url, limits=Limits(total_timeout=0.3), stop=threading.Event()
            )
        connection = BoundedConnection(urlsplit(url), connect_within=2)
        with pytest.raises(TimedOutError):
            connection.post("/", b"{}", {}, within=0.3)
        assert exchanges_end(), "a request goes on in a thread"
        over.set()

    @pytest.mark.usefixtures("through")
    def test_a_body_through_a_proxy_is_no_larger_than_it_may_be(
        self, scheme: str, door: Door
    ) -> None:
        door.answer = lambda _: Reply(200, b" " * 1_001)
        with pytest.raises(TooLargeError), new_session() as session:
            bounded_http.ask(
                session,
                "GET",
                f"{scheme}://{HOST}/",
                limits=Limits(max_body=1_000),
                stop=threading.Event(),
            )

    @everybody
    def test_a_proxy_that_never_finishes_its_answer_holds_nobody(
        self, user: str, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def drip(peer: BadPeer, connection: socket) -> None:
            hear(connection)
            for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX-Slow: x\r\n"):
                if peer.closing.wait(0.02):
                    return
                peer.send(connection, bytes([byte]))

        with bad_peer(drip) as slow:
            monkeypatch.setenv(f"{scheme}_proxy".upper(), slow.url)
            before = time.monotonic()
            assert USERS[user](f"{scheme}://{HOST}", 0.3) != "an answer"
            assert time.monotonic() - before < 2
            assert exchanges_end(), "a request goes on in a thread"


def exchanges_end() -> bool:
    """Whether every thread of an exchange ends, as no time is left for any."""
    for thread in threading.enumerate():
        if thread.name == "http-exchange":
            thread.join(5)
    return not any(thread.name == "http-exchange" for thread in threading.enumerate())


class TestOutboundProxy:
    @pytest.mark.parametrize(
        ("named", "url"),
        [
            ("core.test", "https://core.test/tickers"),
            ("core.test", "https://a.core.test"),
            (".test", "https://core.test:8443"),
            ("core.test:8443", "https://core.test:8443"),
            ("*", "https://core.test"),
            ("10.0.0.0/8", "https://10.1.2.3"),
            ("localhost, 127.0.0.1", "https://127.0.0.1:3000"),
        ],
    )
    def test_what_no_proxy_names_is_asked_directly(
        self, named: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
        assert OutboundProxy.to(url) is not None
        monkeypatch.setenv("NO_PROXY", named)
        assert OutboundProxy.to(url) is None
        assert (OutboundProxy.to("https://other.example.com") is None) == (named == "*")

    def test_a_proxy_doesnt_show_its_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@proxy.test:3128")
        found = OutboundProxy.to("https://core.test/tickers")
        assert found is not None
        assert found.name == "proxy.test:3128"
        assert found.headers["proxy-authorization"].startswith("Basic ")
        assert found.headers["proxy-authorization"] not in repr(found)

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("proxy.test:3128", "proxy.test:3128"),
            ("http://proxy.test", "proxy.test:80"),
            ("http://[::1]:3128/", "[::1]:3128"),
        ],
    )
    def test_a_proxy_is_read_as_requests_reads_it(
        self, value: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", value)
        found = OutboundProxy.to("https://core.test")
        assert found is not None
        assert (found.name, dict(found.headers)) == (name, {})
        assert OutboundProxy.to("http://core.test") is None
