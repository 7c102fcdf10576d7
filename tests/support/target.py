"""A node that is attacked: a real gunicorn on a real store, and clients that break every rule."""

import contextlib
import json
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, Node, answers, free_port, run, wait_for

NOW = "2025-08-15T10:00:00+07:00"
TODAY, YESTERDAY = "2025-08-15", "2025-08-14"
DOORS = ("/gossip", "/public/gossip")
WORKERS, THREADS = 2, 4
# Nobody's limit: a table of a hundred bodies comes from one address.
UNLIMITED = "1000000/1s"


def a_bar(symbol: str = "VCB", **fields: Any) -> dict[str, Any]:
    """A bar that both doors take, but for ``fields``."""
    prices: dict[str, Any] = {"open": 64_300, "high": 64_400, "low": 64_200, "close": 64_300}
    return {
        "symbol": symbol,
        "time": f"{TODAY}T00:00:00Z",
        **prices,
        "volume": 1_000_000,
        **fields,
    }


# --- What goes over the wire ----------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        try:
            return str(json.loads(self.body)["detail"])
        except (ValueError, KeyError, TypeError):
            return ""


def head(
    path: str,
    *lines: str | bytes,
    token: bool | None = None,
    content_type: str | None = "application/json",
) -> bytes:
    """A POST's head with these further lines; the token goes to its own door unless told."""
    given = [f"POST {path} HTTP/1.1", "Host: node.test"]
    if token if token is not None else path == "/gossip":
        given.append(f"Authorization: Bearer {PRIMARY}")
    if content_type is not None:
        given.append(f"Content-Type: {content_type}")
    parts = [line.encode() if isinstance(line, str) else line for line in [*given, *lines]]
    return b"\r\n".join([*parts, b"", b""])


def request(path: str, body: bytes, *lines: str | bytes, **options: Any) -> bytes:
    """A whole POST, with its true length."""
    return head(path, f"Content-Length: {len(body)}", *lines, **options) + body


def connect(port: int, *, source: str = "127.0.0.1", timeout: float = 30) -> socket.socket:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(timeout)
    client.bind((source, 0))
    client.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
    return client


def read_answer(client: socket.socket) -> Answer | None:
    """The next answer on a connection; None when it ended without one."""
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            more = client.recv(65_536)
        except ConnectionResetError:
            more = b""
        if not more:
            return None
        received += more
    top, _, body = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (ln.partition(":") for ln in lines)
    }
    while len(body) < int(headers.get("content-length", 0)):
        more = client.recv(65_536)
        if not more:
            break
        body += more
    return Answer(int(first.split()[1]), headers, body)


def send(
    port: int, data: bytes, *, source: str = "127.0.0.1", half_close: bool = False
) -> Answer | None:
    """What one connection is answered; a server may refuse before it has read all."""
    with connect(port, source=source) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        return read_answer(client)


# --- The node -------------------------------------------------------------------------------------


@dataclass
class Target(Node):
    """A node's API, and everything that it keeps."""

    master: int = 0
    stores: dict[str, "redis.Redis"] = field(default_factory=dict)

    def send(self, data: bytes, **options: Any) -> Answer | None:
        return send(self.port, data, **options)

    def market(self) -> dict[str, Any]:
        """Everything in the store, key by key."""
        store = self.stores["market"]
        return {key.decode(): _content(store, key) for key in sorted(store.scan_iter("*"))}

    def records(self) -> list[tuple[Any, ...]]:
        """Every actor, and every change of a status."""
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            return [
                row
                for table in ("reputation_actor", "reputation_statuschange")
                for row in database.execute(f"SELECT * FROM {table} ORDER BY id")  # noqa: S608
            ]

    def actors(self) -> dict[str, int]:
        """address → failures."""
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            rows = database.execute("SELECT address, failed_updates FROM reputation_actor")
            return {str(address): int(failed) for address, failed in rows}

    def state(self) -> tuple[Any, ...]:
        return self.market(), self.records()

    @property
    def database(self) -> Path:
        return Path(self.environment["DATA_DIR"]) / "reputation.sqlite3"

    def forget_limits(self) -> None:
        """As if nobody had called: no limit is used, and no standing known."""
        self.stores["cache"].flushdb()

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.master).children()

    def resident(self) -> int:
        """Bytes of all web processes."""
        return sum(worker.memory_info().rss for worker in self.workers())

    def works(self, *, within: float = 10) -> bool:
        """Whether a trusted peer that calls now is answered in time: its bar is late, so nothing
        changes."""
        body = json.dumps(a_bar(volume=1)).encode()
        with connect(self.port, timeout=within) as client:
            client.sendall(request("/gossip", body))
            answer = read_answer(client)
        return answer is not None and answer.status == 200

    def ban(self, address: str) -> None:
        """Six implausible bars; the node is told by nobody but the liar."""
        lie = json.dumps(a_bar(open=99_000, high=99_000, low=99_000, close=99_000)).encode()
        for _ in range(6):
            answer = self.send(request("/public/gossip", lie), source=address)
            assert answer is not None
            assert (answer.status, answer.detail) == (400, "Implausible price change")


def _content(store: "redis.Redis", key: bytes) -> Any:
    kind = store.type(key)
    if kind == b"zset":
        return store.zrange(key, 0, -1, withscores=True)
    if kind == b"hash":
        return store.hgetall(key)
    if kind == b"stream":
        return store.xrange(key)
    return store.dump(key)


@contextmanager
def target(
    folder: Path, *, bind: str = "", conf: str = "", cooldown: float = 0.0, **settings: str
) -> Iterator[Target]:
    """A node's API with one trusted bar of yesterday and one of today; ``conf`` is Python that
    comes behind what gunicorn.conf.py says. ``cooldown``: seconds for which a refused sender isn't
    read."""
    folder.mkdir(parents=True, exist_ok=True)
    data, port = folder / "data", free_port()
    environment = clean(
        **{
            "PORT": str(port),
            "DATA_DIR": str(data),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "DEBUG_SYSTEM_TIME": NOW,
            "TRUST_WINDOW": "86400",
            **settings,
        }
    )
    node = Target("target", port, environment, folder)
    run(environment, "manage.py", "migrate", "--verbosity=0")
    adapted = folder / "gunicorn.conf.py"
    shorter = f"from proxy_site.serving import cooldown\ncooldown.COOLDOWN = {cooldown}"
    adapted.write_text(f"{(ROOT / 'gunicorn.conf.py').read_text()}\n{shorter}\n{conf}\n")
    command = ["-m", "gunicorn", "-c", str(adapted), "--workers", str(WORKERS)]
    if bind:
        command += ["-b", f"{bind}:{port}"]
    try:
        with Processes() as api:
            node.master = api.start(
                "API", sys.executable, *command, env=environment, cwd=ROOT, log=folder / "node.log"
            )
            wait_for(lambda: answers(node), "the node to answer", node)
            url = embedded_redis.url(data)
            with (
                redis.Redis.from_url(url) as store,
                redis.Redis.from_url(url.replace("db=0", "db=1")) as cache,
            ):
                node.stores = {"market": store, "cache": cache}
                bars = [a_bar(time=YESTERDAY), a_bar(volume=1_000)]
                assert node.post("/gossip", bars, Authorization=f"Bearer {PRIMARY}").ok
                yield node
    finally:
        node.session.close()
        embedded_redis.stop(data)
