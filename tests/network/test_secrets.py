"""What real processes print and answer, also when they fail, shows neither token."""

import datetime as dt
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, Node, free_port, running, wait_for
from tests.support.proxies import Door, Reply
from tests.support.yard import StoreServer
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(["VCB", "FPT"])

BAR = {"symbol": "VCB", "time": "2025-08-15T00:00:00Z", "volume": 1} | dict.fromkeys(
    ("open", "high", "low", "close"), 64_300
)
# Requests that gunicorn's parser refuses, each with a token somewhere.
BROKEN = [
    f"POST /gossip HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {PRIMARY}\0\r\n\r\n",
    f"POST /gossip HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {PRIMARY}\n folded\r\n\r\n",
    f"POST /gossip HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {PRIMARY}\r\n\r\n",
    f"POST /gossip HTTP/1.1\r\nHost: x\r\nBearer {SECONDARY}: x\r\n\r\n",
    f"POST /gossip HTTP/9.9\r\nAuthorization: Bearer {PRIMARY}\r\n\r\n",
    f"POST /gossip HTTP/1.1\r\nAuthorization: Bearer {PRIMARY}\r\nContent-Length: x\r\n\r\n",
    f"POST /gossip HTTP/1.1\r\nAuthorization: Bearer {PRIMARY * 1000}\r\n\r\n",
    f"Bearer {PRIMARY}\r\n\r\n",
]


@pytest.fixture
def peer() -> Iterator[Door]:
    """One that refuses this node's token."""
    with Door(lambda request: Reply(401)) as door:
        yield door


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    server = StoreServer("store", tmp_path / "store", free_port())
    server.start()
    yield server
    server.kill()
    server.client.close()


@pytest.fixture
def node(peer: Door, store: StoreServer, tmp_path: Path) -> Iterator[Node]:
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=5, history_start=HISTORY_START
    )
    with (
        SimulatorServer(market) as exchange,
        running(
            "talkative",
            tmp_path,
            free_port(),
            LOG_LEVEL="DEBUG",
            TICKERS=",".join(UNIVERSE.symbols),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=NOON.isoformat(),
            REDIS_URL=store.url,
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=peer.url,
            PUBLIC_PEER_URLS=peer.url,
        ) as node,
    ):
        yield node


def ask(node: Node, text: str) -> str:
    """What is answered to bytes that are no valid request."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer.decode("latin-1")


def told_by(node: Node, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env={**os.environ, **node.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_no_token_is_printed_or_answered(node: Node, peer: Door, store: StoreServer) -> None:
    told = []

    def post(body: object, token: str) -> None:
        answer = node.post("/gossip", body, Authorization=f"Bearer {token}")
        told.append(f"{answer.status_code} {answer.headers} {answer.text}")

    def post_all() -> None:
        for token in (PRIMARY, SECONDARY):
            post(BAR, token)
            post({"symbol": token}, token)
            post(BAR, f"{token}x")
        for _ in range(12):
            post(BAR, f"x{PRIMARY}")

    wait_for(lambda: "wants nothing from us" in node.log(), "the peer to refuse", node)
    wait_for(lambda: any(r.authorization == f"Bearer {PRIMARY}" for r, _ in peer.seen), "the token")
    post_all()
    for text in BROKEN:
        answer = ask(node, text)
        assert answer.startswith(("HTTP/1.1 4", "HTTP/1.0 4")) or not answer, answer
        told.append(answer)
    headers = {"Authorization": f"Bearer {PRIMARY}"}
    paths = ("/health", "/", "/admin/login/", "/nothing", "/tickers", "/gossip")
    told += [node.get(path, headers=headers).text for path in paths]
    told += [told_by(node, "rotate_token"), told_by(node, "check", "--deploy")]
    settings = told_by(node, "diffsettings", "--all")
    assert "PRIMARY_TOKEN" in settings
    told.append(settings)

    store.kill()
    post_all()
    told.append(told_by(node, "rotate_token"))
    assert any(answer.startswith("503 ") for answer in told)

    everything = "\n".join([*told, node.log()])
    assert "no valid token from 127.0.0.1" in everything
    shown = [line for line in everything.splitlines() if PRIMARY in line or SECONDARY in line]
    assert shown == []
