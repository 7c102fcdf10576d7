"""The connection to a peer: whom it tells the token, and what a peer can do to it."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from gossip.delivery.connection import CONNECT_WITHIN, MAX_ANSWER, Connection
from gossip.delivery.peer import Peer, PeerKind
from tests.support.core import Core, until
from tests.support.doors import a_bar
from tests.support.forward_proxy import ForwardProxy, tls
from tests.support.peers import (
    PATIENCE,
    TOKEN,
    Nodes,
    Received,
    always,
    in_turn,
    internal,
    public,
    take,
)
from tests.support.proxies import Door


class TestToken:
    def test_a_public_peer_gets_no_authorization_header(
        self, core: Core, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    def test_a_proxy_doesnt_see_the_token_of_a_peer_that_speaks_https(
        self, core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context, authority = tls("node-b.test", tmp_path)
        with Door(tls=context) as door, ForwardProxy({"node-b.test": door.port}) as proxy:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            core.deliver(Peer("https://node-b.test", PeerKind.INTERNAL, TOKEN))
            for symbol in ("VCB", "FPT", "ACB"):
                door.forget()
                core.fetch(a_bar(symbol))
                door.wait_for(lambda: door.taken, "a bar")
                assert door.taken[-1].authorization == f"Bearer {TOKEN}"
            assert proxy.seen == [("CONNECT", "node-b.test:443")], "the tunnel is kept"
            assert TOKEN not in str(proxy.headers)

    def test_a_peer_that_no_proxy_names_gets_it_directly(
        self, core: Core, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy, node = nodes(), nodes()
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        assert proxy.received == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, core: Core, nodes: Nodes, status: int) -> None:
        elsewhere = nodes()
        node = nodes(always(status, Location=f"{elsewhere.url}/gossip"))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["failing"] == 1)
        assert elsewhere.received == []
        assert len(node.received) == 1


class TestKeptAlive:
    def test_requests_share_a_connection(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        core.deliver(internal(node))
        for volume in range(1, 4):
            core.fetch(a_bar("VCB", volume=volume))
            node.wait_for(volume)
        assert len({request.port for request in node.received}) == 1

    def test_a_connection_that_the_peer_has_closed_is_opened_again(
        self, core: Core, nodes: Nodes
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

    def test_a_reset_connection_is_retried(self, core: Core, nodes: Nodes) -> None:
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


class TestBadPeers:
    @pytest.mark.parametrize(
        "chunk", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"X"]
    )
    def test_a_peer_that_drips_its_answer_is_left_and_holds_no_other(
        self, core: Core, nodes: Nodes, chunk: bytes
    ) -> None:
        """Each byte comes in time, the answer never."""

        def drip(request: Received) -> None:
            for byte in chunk * 10_000:
                request.write(bytes([byte]))
                if request.handler.server.closing.wait(0.01):
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
            "banned_by": 0,
            "banned_since": None,
            "away": 0,
            "away_since": None,
            "older": 0,
            "frozen": 0,
            "frozen_since": None,
            "sent": 1,
            "refused": 0,
            "failures": 0,
            "lacking": 1,
            "withheld": 0,
        }

    def test_a_peer_that_never_finishes_its_tls_handshake_is_left_in_time(
        self, core: Core, nodes: Nodes
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

    def test_a_peer_whose_name_nobody_tells_is_left_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(20) and [])
        connection = Connection(Peer("http://node.invalid", PeerKind.PUBLIC), answer_within=0.2)
        started = time.monotonic()
        assert connection.post(b"{}").reason == "no answer in time"
        assert time.monotonic() - started < CONNECT_WITHIN
        release.set()

    def test_a_request_is_cut_from_another_thread(self, nodes: Nodes) -> None:
        begun = threading.Event()

        def hang(request: Received) -> None:
            begun.set()
            request.handler.server.closing.wait(PATIENCE)

        connection = Connection(internal(nodes(hang)), answer_within=30)

        def cut() -> None:
            begun.wait(PATIENCE)
            connection.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        started = time.monotonic()
        assert connection.post(b"{}").status is None
        assert connection.post(b"{}").status is None, "it is cut for good"
        assert time.monotonic() - started < PATIENCE
        cutter.join()

    def test_a_peer_that_never_finishes_its_answer_has_taken_the_bar(
        self, core: Core, nodes: Nodes
    ) -> None:
        def begin(request: Received) -> None:
            request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfoo")
            request.handler.server.closing.wait(PATIENCE)

        node = nodes(begin)
        delivery = core.deliver(internal(node), answer_within=0.2)
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["sent"] == 1)

    def test_a_peer_that_sends_a_gigabyte_is_cut_off_early(self, core: Core, nodes: Nodes) -> None:
        written: list[int] = []

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
    def test_a_peer_that_answers_with_garbage_is_asked_again(
        self, core: Core, nodes: Nodes, garbage: bytes
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
