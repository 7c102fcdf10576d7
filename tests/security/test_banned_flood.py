"""A banned actor that sends as fast as it can: refused each time, without a look into the database,
while trusted peers are served."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.front import needs_nginx, nginx
from tests.support.target import Target, a_bar, connect, read_answer, request, send, target

pytestmark = pytest.mark.slow

# None is 127.0.0.1, the node's own machine, which nginx doesn't limit.
LIAR, INNOCENT, UNKNOWN = "127.0.0.66", "127.0.0.7", "127.0.0.99"
CONNECTIONS, CHANGES = 16, 20
HIGH: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), 99_000)
LIE = json.dumps(a_bar(**HIGH, volume=20_000_000)).encode()


@contextmanager
def database_gone(node: Target) -> Iterator[None]:
    """Another, empty one is in its place: whatever is asked of it fails."""
    files = [node.database.with_name(node.database.name + end) for end in ("", "-wal", "-shm")]
    moved = [(file, file.with_name(f"{file.name}.away")) for file in files if file.exists()]
    for file, away in moved:
        file.rename(away)
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        for file, away in moved:
            away.rename(file)


def flood(port: int, *, at_least: int = CHANGES) -> Counter[int]:
    """The statuses that a flood is answered, 0 for no answer, while a trusted peer posts changes.

    It ends when the peer has posted its last change and ``at_least`` of the flood were answered.
    """
    counts: Counter[int] = Counter()
    posted, counting = threading.Event(), threading.Lock()

    def attack() -> None:
        data = request("/public/gossip", LIE)
        with connect(port, source=LIAR) as client:
            while not posted.is_set() or counts.total() < at_least:
                client.sendall(data)
                answer = read_answer(client)
                with counting:
                    counts[answer.status if answer else 0] += 1

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        attackers = [pool.submit(attack) for _ in range(CONNECTIONS)]
        try:
            for change in range(CHANGES):
                body = json.dumps(a_bar(volume=1_000_000 + change)).encode()
                answer = send(port, request("/gossip", body))
                assert answer is not None
                assert (answer.status, json.loads(answer.body)["verdict"]) == (200, "replaced")
        finally:
            posted.set()
        for attacker in attackers:
            attacker.result()
    return counts


def test_it_is_refused_without_the_database_and_trusted_gossip_goes_on(tmp_path: Path) -> None:
    with target(tmp_path) as node:
        node.ban(LIAR)  # which makes its standing known for a minute
        before = node.records()
        with database_gone(node):
            # Who isn't known must be looked up, and can't be.
            stranger = node.send(request("/public/gossip", LIE), source=INNOCENT)
            assert stranger is not None
            assert stranger.status == 503
            # Not as often as it likes: the limit comes before the look.
            answers = [node.send(request("/public/gossip", LIE), source=UNKNOWN) for _ in range(45)]
            assert {answer.status for answer in answers if answer} == {503, 429}
            counts = flood(node.port)
        assert set(counts) == {403, 429}
        assert node.records() == before
        answer = node.send(request("/public/gossip", LIE), source=INNOCENT)
        assert answer is not None
        assert answer.detail == "Implausible price change"


@needs_nginx
def test_behind_nginx_most_of_it_reaches_no_node(tmp_path: Path) -> None:
    with (
        target(tmp_path, TRUSTED_PROXIES="127.0.0.1") as node,
        nginx(node.folder / "front", node.port) as front,
    ):
        node.ban(LIAR)
        before = node.records()
        with database_gone(node):
            counts = flood(front.port, at_least=1_000)  # nginx lets a burst of 200 through
        assert set(counts) == {403, 429}
        assert front.log().count("limiting requests") > counts.total() / 2
        assert node.records() == before
