"""Whoever is refused writes nothing into the log, however often and however wrong it asks; but for
a wrong Host header, which has a line a minute."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.target import Target, a_bar, head, request, target
from tickers.store.store import ROOT

TIMES = 25
SETTINGS: dict[str, Any] = {
    "ALLOWED_HOSTS": "node.test,127.0.0.1",
    "PUBLIC_RATE": "7/1s",
    "TOKEN_FAILURE_RATE": "10/1h",  # no period ends meanwhile
}
BAR = json.dumps(a_bar()).encode()
HIGH: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), 99_000)
LIE = json.dumps(a_bar(**HIGH)).encode()
ELSEWHERE = b"POST /public/gossip HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = {
    "limited, then banned": request("/public/gossip", LIE),
    "no JSON": request("/gossip", b"{"),
    "another content type": request("/gossip", b"{}", content_type="text/plain"),
    "too large": head("/public/gossip", "Content-Length: 99999999"),
    "another host": ELSEWHERE,
    "another method": b"DELETE /public/gossip HTTP/1.1\r\nHost: node.test\r\n\r\n",
    "nothing there": b"GET /nothing HTTP/1.1\r\nHost: node.test\r\n\r\n",
    "a form without its token": b"POST /admin/login/ HTTP/1.1\r\nHost: node.test\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
    "a line too long": b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\nHost: node.test\r\n\r\n",
    "a length that is none": b"POST /gossip HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n",
}

BROKEN = """
def post_worker_init(worker):
    from gossip import wire

    decode = wire.decode

    def decode_or_fail(body):
        if body == b"[7]":
            raise RuntimeError("a bug")
        return decode(body)

    wire.decode = decode_or_fail
"""


def log(node: Target) -> list[str]:
    return (node.folder / "node.log").read_text().splitlines()


def statuses(node: Target, data: bytes) -> Counter[int]:
    answers = [node.send(data) for _ in range(TIMES)]
    return Counter(answer.status for answer in answers if answer)


def test_refusals_are_not_logged_and_a_closed_door_neither(tmp_path: Path) -> None:
    with target(tmp_path, **SETTINGS) as node:
        before = len(log(node))
        for what, data in REFUSED.items():
            got = statuses(node, data)
            assert got.total() == TIMES, what
            assert all(400 <= status < 500 for status in got), what
        said = log(node)[before:]
        assert sum("BANNED" in line for line in said) == 1, said
        # An operator's mistake shows as a wrong host too: a minute has a line of each process.
        assert 1 <= sum("'evil.test', which ALLOWED_HOSTS doesn't" in line for line in said) <= 2
        assert all("BANNED" in line or "ALLOWED_HOSTS" in line for line in said), said
        before = len(log(node)) - 1

        guess = request("/gossip", BAR, token=False)
        assert set(statuses(node, guess)) == {401, 429}
        assert len(log(node)) == before + 3  # the first of a period, and the first over the limit

        node.stores["market"].delete(f"{ROOT}:trusted_at")
        node.forget_limits()
        closed = node.send(request("/public/gossip", BAR), source="127.0.0.9")
        assert closed is not None
        assert closed.status == 503
        assert len(log(node)) == before + 3


def test_a_failure_of_the_nodes_own_is_logged(tmp_path: Path) -> None:
    with target(tmp_path, conf=BROKEN) as node:
        answer = node.send(request("/gossip", b"[7]"))
        assert answer is not None
        assert answer.status == 500
        assert sum("RuntimeError: a bug" in line for line in log(node)) == 1
