"""Whole nodes as real processes: gunicorn, a worker, and a server of their own."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests

from proxy_site.local import embedded_redis, processes
from proxy_site.local.processes import Processes
from tests.support.environment import clean

ROOT = Path(__file__).resolve().parents[2]
PRIMARY = "network-primary-token"
SECONDARY = "network-secondary-token"

T = TypeVar("T")


class Logs(Protocol):
    """A process, or several, whose log is shown when a wait for it was in vain."""

    name: str

    def log(self) -> str: ...


@dataclass
class Node:
    """A running node; ``get`` and ``post`` are relative to its address."""

    name: str
    port: int
    environment: dict[str, str]
    folder: Path
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=10, **options)

    def post(self, path: str, body: object, **headers: str) -> requests.Response:
        return self.session.post(f"{self.url}{path}", json=body, headers=headers, timeout=10)

    def last_bars(self) -> dict[str, Any]:
        """symbol → its last trusted bar; empty while the node has no market."""
        try:
            answer = self.get("/tickers?limit=1&authority=trusted")
        except requests.RequestException:
            return {}
        market = answer.json() if answer.ok else {}
        return {symbol: bars[-1] for symbol, bars in market.items()}

    def log(self) -> str:
        return (self.folder / "node.log").read_text(errors="replace")


def free_port() -> int:
    """A port that nothing listens on; the node started next takes it.

    Below those that the kernel gives to clients: a flood's would take it before the node does.
    """
    return processes.free_port(random.randrange(10_000, 32_000), set())


@contextmanager
def running(name: str, folder: Path, port: int, **settings: str) -> Iterator[Node]:
    """Start a node with these settings, and end it."""
    data = folder / "data"
    environment = clean(
        **{
            "ENVIRONMENT": "development",
            "NODE_NAME": name,
            "PORT": str(port),
            "DATA_DIR": str(data),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "VCI_RATE_LIMIT": "6000",
            "VCI_BATCH_SIZE": "100",
            "CORE_WORKER_INTERVAL": "0.5",
            "PUBLIC_REFRESH_INTERVAL": "0.5",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    node = Node(name, port, environment, folder)
    run(environment, "manage.py", "migrate", "--verbosity=0")
    try:
        with Processes() as children:
            for what, *command in (
                ("API", "-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "2"),
                ("worker", "manage.py", "run_worker"),
            ):
                children.start(
                    f"{name}'s {what}",
                    sys.executable,
                    *command,
                    env=environment,
                    cwd=ROOT,
                    log=folder / "node.log",
                )
            wait_for(lambda: answers(node), f"{name} to answer", node)
            yield node
    finally:
        embedded_redis.stop(data)


def run(environment: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def answers(node: Node) -> bool:
    try:
        return node.get("/health").status_code in (200, 503)
    except requests.RequestException:
        return False


def wait_for(check: Callable[[], T | None], what: str, *nodes: Logs, seconds: float = 30) -> T:
    """Poll until ``check`` gives something true; fails with the nodes' logs."""
    deadline = time.monotonic() + seconds
    while True:
        if found := check():
            return found
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {node.name}\n{node.log()[-3000:]}" for node in nodes)
            raise AssertionError(f"waited {seconds:g} s for {what}\n{logs}")
        time.sleep(0.05)
