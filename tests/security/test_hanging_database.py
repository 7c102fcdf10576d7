"""A database that accepts and never answers, while many ask for what only it knows: trusted gossip
and reads don't wait for it, and it is used again soon after it answers."""

import contextlib
import itertools
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from reputation.database_bulkhead import PAUSE
from tests.support import postgres
from tests.support.nodes import wait_for
from tests.support.target import Target, a_bar, request, target

pytestmark = pytest.mark.slow

POSTERS = 12
# By itself a post takes some milliseconds. A turn at the door while the database is found to hang
# may cost each thread the quarter of a second for which one waits to be let in.
SOON = 1.5
CONNECT_TIMEOUT = 5.0  # seconds, of the settings


class Relay:
    """A way to PostgreSQL that stops passing anything on when told, and keeps accepting."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self.flows = threading.Event()
        self.flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flows.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._there)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError), other:
            while data := one.recv(65_536):
                self.flows.wait()
                other.sendall(data)


@pytest.fixture
def relay() -> Iterator[tuple[Relay, str]]:
    """The relay, and the URL of a database of the test's own behind it."""
    found = postgres.find()
    if not found.url:
        pytest.skip(f"no PostgreSQL: {found.what}")
    import psycopg

    parts, name = urlsplit(found.url), f"aipriceaction_hangs_{os.getpid()}"
    with psycopg.connect(found.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    relay = Relay(parts.hostname or "127.0.0.1", parts.port or 5432)
    user = parts.netloc.rpartition("@")[0]
    try:
        yield relay, f"postgres://{user}@127.0.0.1:{relay.port}/{name}"
    finally:
        relay.close()
        postgres.drop(found.url, name)


def ask(node: Target, address: str) -> tuple[int, dict[str, str]]:
    """A post of someone that the node can't know but from the database."""
    answer = node.send(
        request("/public/gossip", json.dumps(a_bar()).encode(), f"X-Forwarded-For: {address}")
    )
    assert answer is not None
    return answer.status, answer.headers


@contextlib.contextmanager
def strangers(node: Target) -> Iterator[Counter[int]]:
    """They post all the time, each time from another address; the statuses they are answered."""
    counts: Counter[int] = Counter()
    over, counting = threading.Event(), threading.Lock()
    numbers = itertools.count()

    def post() -> None:
        while not over.is_set():
            with counting:
                number = next(numbers)
            status, headers = ask(node, f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
            assert status != 503 or headers["retry-after"]
            with counting:
                counts[status] += 1

    with ThreadPoolExecutor(POSTERS) as pool:
        posting = [pool.submit(post) for _ in range(POSTERS)]
        try:
            yield counts
        finally:
            over.set()
        for posted in posting:
            posted.result()


def seconds_of_a_trusted_post(node: Target) -> float:
    begun = time.monotonic()
    assert node.works()
    return time.monotonic() - begun


def seconds_of_a_read(node: Target) -> float:
    begun = time.monotonic()
    assert requests.get(f"{node.url}/tickers", params={"limit": "1"}, timeout=30).ok
    return time.monotonic() - begun


@pytest.mark.timeout(120)
def test_holds_up_neither_peers_nor_readers_and_is_asked_again_when_it_is_back(
    tmp_path: Path, relay: tuple[Relay, str]
) -> None:
    way, url = relay
    with target(tmp_path, DATABASE_URL=url, TRUSTED_PROXIES="127.0.0.1") as node:
        assert ask(node, "192.0.2.1")[0] == 200
        way.flows.clear()
        with strangers(node) as counts:
            until = time.monotonic() + 8
            while time.monotonic() < until:
                assert seconds_of_a_trusted_post(node) < SOON
                assert seconds_of_a_read(node) < SOON
                time.sleep(0.2)
            assert set(counts) == {503}
            problems = requests.get(f"{node.url}/health", timeout=30).json()["problems"]
            assert any("database can't be reached" in problem for problem in problems)
            way.flows.set()
            wait_for(
                lambda: ask(node, "192.0.2.2")[0] == 200,
                "it to be asked",
                node,
                seconds=CONNECT_TIMEOUT + PAUSE,
            )
