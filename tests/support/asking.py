"""A process that asks a server once, as one part of a node does, and prints what that cost.

Run as ``python -m tests.support.asking USER URL SECONDS``; USER is upstream, core or peer, SECONDS
the time that the whole exchange may take. Prints JSON: ``outcome``, ``seconds``, ``megabytes``
(what the process's memory grew by, at its peak).
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast


def ask_upstream(url: str, seconds: float) -> str:
    import datetime as dt

    from tickers.vci.client import VciClient
    from tickers.vci.errors import UpstreamError
    from tickers.vci.request_budget import RequestBudget

    client = VciClient(
        base_url=url,
        budget=cast("RequestBudget", SimpleNamespace(take=lambda **_: True, pace=2.0)),
        batch_size=50,
        stop=threading.Event(),
        total_timeout=seconds,
        max_attempts=1,
    )
    with closing(client):
        try:
            client.history(["VCB"], interval="1D", count_back=5, to=dt.datetime.now(dt.UTC))
        except UpstreamError as error:
            return str(error)
    return "an answer"


def ask_core(url: str, seconds: float) -> str:
    from tickers.follower import Follower, FollowError

    follower = Follower(
        cast("Any", SimpleNamespace(followed=dict)),  # a store that has followed nobody yet
        url=url,
        refresh_interval=300,
        history_start=0,
        stop=threading.Event(),
        total_timeout=seconds,
    )
    try:
        follower.cycle("1")
    except FollowError as error:
        return str(error)
    return "an answer"


def ask_peer(url: str, seconds: float) -> str:
    from gossip.delivery.connection import Connection
    from gossip.delivery.peer import Peer, PeerKind

    with closing(Connection(Peer(url, PeerKind.PUBLIC), answer_within=seconds)) as connection:
        return connection.post(b"{}").reason


USERS: dict[str, Callable[[str, float], str]] = {
    "upstream": ask_upstream,
    "core": ask_core,
    "peer": ask_peer,
}


def peak() -> float:
    """Megabytes. Not getrusage: a process begins with its parent's peak there."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1_024


def main(user: str, url: str, seconds: float) -> None:
    # What is imported and set up by a first request isn't the server's doing.
    USERS[user]("http://127.0.0.1:9", seconds)
    before, begun = peak(), time.monotonic()
    outcome = USERS[user](url, seconds)
    took, grown = time.monotonic() - begun, peak() - before
    sys.stdout.write(json.dumps({"outcome": outcome, "seconds": took, "megabytes": grown}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
