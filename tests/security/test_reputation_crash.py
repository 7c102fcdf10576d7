"""kill -9 while senders lie: what was answered is on record, whenever it hits.

Four clients lie as different senders, each until it is told of its ban, while the node's web
processes are killed at random moments and started again. Seeded; the moments in the processes' own
lives are not.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from proxy_site.local.processes import Processes
from tests.support.nodes import ROOT, answers, wait_for
from tests.support.target import UNLIMITED, WORKERS, Target, a_bar, target

pytestmark = pytest.mark.slow

CLIENTS = 4
LIE = json.dumps(a_bar(open=99_000, high=99_000, low=99_000, close=99_000))


@dataclass
class Told:
    """How often a sender's lie was refused, who was told of a ban, and what else was answered."""

    failures: Counter[str] = field(default_factory=Counter)
    banned: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def lying(node: Target, told: Told) -> Iterator[None]:
    ended = threading.Event()

    def lie(client: int) -> None:
        session, sender = requests.Session(), 0
        while not ended.is_set():
            address = f"10.{client}.{sender // 250}.{sender % 250 + 1}"
            headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
            try:
                answer = session.post(
                    f"{node.url}/public/gossip", data=LIE, headers=headers, timeout=10
                )
            except requests.RequestException:
                continue  # killed under it: nothing was promised
            if answer.status_code == 503:
                continue  # the machine is so busy that SQL took over 0.5 s: nothing was promised
            detail = answer.json()["detail"]
            if detail == "Implausible price change":
                told.failures[address] += 1
            elif detail == "Source IP is banned":
                told.banned.add(address)
                sender += 1
            else:
                told.others[detail] += 1

    threads = [threading.Thread(target=lie, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def on_record(node: Target) -> tuple[dict[str, int], set[str]]:
    """(failures by address, the banned), as SQL has them."""
    with contextlib.closing(sqlite3.connect(node.database)) as database:
        rows = database.execute("SELECT address, failed_updates, status FROM reputation_actor")
        found = list(rows)
    return {a: n for a, n, _ in found}, {a for a, _, status in found if status == "BANNED"}


def check(node: Target, told: Told) -> None:
    failures, banned = on_record(node)
    assert {a: n for a, n in told.failures.items() if failures.get(a, 0) < n} == {}
    assert told.banned - banned == set()


def test_no_answered_failure_or_ban_is_lost(tmp_path: Path) -> None:
    kill_while_they_lie(4, tmp_path)


@pytest.mark.timeout(400)
def test_no_answered_failure_or_ban_is_lost_by_many_kills(tmp_path: Path) -> None:
    kill_while_they_lie(30, tmp_path)


def has_told_more(told: Told, than: int) -> bool:
    return told.failures.total() > than


def kill_while_they_lie(kills: int, tmp_path: Path) -> None:
    throw, told = random.Random(7), Told()
    settings: dict[str, Any] = {"TRUSTED_PROXIES": "127.0.0.1", "PUBLIC_RATE": UNLIMITED}
    with target(tmp_path, **settings) as node, contextlib.ExitStack() as stack:
        master = node.master
        command = ["-m", "gunicorn", "-c", str(tmp_path / "gunicorn.conf.py")]
        with lying(node, told):
            for kill in range(kills):
                seen = told.failures.total()
                wait_for(partial(has_told_more, told, seen + 20), "lies", node)
                time.sleep(throw.uniform(0, 0.1))  # at any moment of whatever they do
                os.killpg(master, signal.SIGKILL)
                check(node, told)
                if kill % 2:
                    node.forget_limits()  # the cache may go with them
                api = stack.enter_context(Processes())
                master = api.start(
                    "API",
                    *(sys.executable, *command, "--workers", str(WORKERS)),
                    env=node.environment,
                    cwd=ROOT,
                    log=tmp_path / "node.log",
                )
                wait_for(lambda: answers(node), "the node to answer again", node)
            wait_for(lambda: len(told.banned) >= kills, "bans", node)
        check(node, told)
        assert told.others == Counter()
        node.forget_limits()
        for address in sorted(told.banned)[:20]:
            headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
            again = requests.post(
                f"{node.url}/public/gossip", data=LIE, headers=headers, timeout=10
            )
            assert again.status_code == 403
