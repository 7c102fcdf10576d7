"""A sender that got 403 or 429 is not read for a moment, and nobody else waits."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.target import Target, a_bar, connect, read_answer, request, target

FLOODER, PEER, FORGOTTEN = "127.0.0.5", "127.0.0.6", "127.0.0.7"
LATE = request("/gossip", json.dumps(a_bar(volume=1)).encode())  # changes nothing
PUBLIC = request("/public/gossip", json.dumps(a_bar()).encode())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder: Path = tmp_path_factory.mktemp("cooldown")
    with target(folder, cooldown=1.5) as running:
        running.ban(FLOODER)
        running.ban(FORGOTTEN)
        running.forget_limits()
        yield running


def seconds_to_answer(node: Target, source: str, *lines: str) -> float:
    """Of a request that follows one that is refused, on another connection of that address."""
    refused = request("/public/gossip", json.dumps(a_bar()).encode(), *lines)
    with connect(node.port, source=source) as first, connect(node.port, source=source) as second:
        first.sendall(refused)
        answer = read_answer(first)
        assert answer is not None
        assert answer.status == 403
        # Each worker knows of its own refusals: whichever has the second connection, the first
        # one's comes back to the worker that refused it.
        began = time.monotonic()
        first.sendall(LATE)
        answer = read_answer(first)
        assert answer is not None
        assert answer.status == 200
        took = time.monotonic() - began
        second.sendall(LATE)
        assert read_answer(second) is not None
        return took


def test_a_banned_sender_waits_before_its_next_request(node: Target) -> None:
    assert seconds_to_answer(node, FLOODER) > 1


def test_other_senders_dont_wait_beside_it(node: Target) -> None:
    with connect(node.port, source=FLOODER) as flooder:
        flooder.sendall(PUBLIC + PUBLIC)  # one is refused, the other waits
        assert read_answer(flooder) is not None
        for _ in range(8):  # both workers have had one of them, most likely
            began = time.monotonic()
            with connect(node.port, source=PEER) as peer:
                peer.sendall(LATE)
                answer = read_answer(peer)
            assert answer is not None
            assert answer.status == 200
            assert time.monotonic() - began < 1


def test_a_proxy_that_the_settings_forgot_doesnt_wait(node: Target) -> None:
    """Others' reads come through it."""
    assert seconds_to_answer(node, FORGOTTEN, "X-Forwarded-For: 203.0.113.9") < 1
