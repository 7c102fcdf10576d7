"""Real processes that a test may kill, pause and start again, and stores that go back in time.

Each is ended by its id with the test that started it, also when the test fails.
"""

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import redis
import requests

from proxy_site.local import embedded_redis, processes
from simulator.loopback import LoopbackServer
from tests.support.environment import clean
from tests.support.nodes import ROOT, wait_for
from tickers.store.redis_client import connect

PRIMARY, SECONDARY = "faults-primary-token", "faults-secondary-token"

# Below the ports that the system gives to clients: a process that is started again must find its
# port free, whatever connected where meanwhile.
_PORTS = (20_000, 31_000)


class Process:
    """A child in a session of its own; what systemd does when it dies is the test's part."""

    def __init__(
        self, name: str, *command: str, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def lives(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9, then whatever of its session is left, as systemd does with a control group."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def kill_a_child(self, throw: random.Random) -> None:
        children = wait_for(psutil.Process(self.pid).children, f"a child of {self.name}")
        throw.choice(children).kill()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def says(self, line: str) -> bool:
        return line in self.log()


class StoreServer(Process):
    """A server as production has it (append-only file, synced every second, no eviction)."""

    def __init__(self, name: str, folder: Path, port: int, **settings: str) -> None:
        folder.mkdir(parents=True)
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            **settings,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        super().__init__(
            name, embedded_redis.binary(), *arguments, log=folder.parent / f"{name}.log"
        )
        self._folder = folder
        self.port = port
        password = f":{settings['requirepass']}@" if "requirepass" in settings else ""
        self.url = f"redis://{password}127.0.0.1:{port}/0"
        self.client = connect(self.url, timeout=5)

    def start(self) -> None:
        super().start()
        wait_for(self._answers, f"{self.name} to answer")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def keep_state(self) -> Path:
        """A copy of what the server has now, for ``go_back``."""
        self.client.ping()  # it has written all that it answered before
        kept = self._folder.with_name(f"{self._folder.name}.kept")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self._folder, kept)
        return kept

    def go_back(self, kept: Path) -> None:
        """kill -9, and a start from the older state."""
        self.kill()
        shutil.rmtree(self._folder)
        shutil.copytree(kept, self._folder)
        self.start()

    def forget(self) -> None:
        """kill -9, and a start from nothing."""
        self.kill()
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        self.start()


class Link(LoopbackServer):
    """Lies between a node and its store; ``delay`` (seconds) holds back each answer."""

    def __init__(self, to_port: int) -> None:
        super().__init__(_Pump)
        self.to_port = to_port
        self.delay = 0.0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self.closing.set()
        super().stop()


class _Pump(socketserver.BaseRequestHandler):
    server: Link

    def handle(self) -> None:
        # Whoever hangs up, or isn't there, ends the connection on both sides.
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.to_port)) as store,
        ):
            while not self.server.closing.is_set():
                ready, _, _ = select.select([self.request, store], [], [], 0.2)
                for source in ready:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if source is store:
                        self.server.closing.wait(self.server.delay)
                    (self.request if source is store else store).sendall(data)


class Node:
    """gunicorn and a worker on ``store``, each of which may be killed and started again."""

    def __init__(self, name: str, store: StoreServer, api: Process, worker: Process, port: int):
        self.name = name
        self.store = store
        self.api = api
        self.worker = worker
        self.url = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        self.store.start()
        self.api.start()
        self.worker.start()

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=30, **options)

    def post(self, path: str, body: object, **headers: str) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=30)

    def market(self) -> dict[str, Any]:
        """Every trusted bar of every symbol; empty while the node has no market."""
        try:
            answer = self.get("/tickers?authority=trusted")
        except requests.RequestException:
            return {}
        return dict(answer.json()) if answer.ok else {}

    def answers(self) -> bool:
        try:
            return self.get("/health").status_code in (200, 503)
        except requests.RequestException:
            return False

    def log(self) -> str:
        return "\n".join(process.log()[-3000:] for process in (self.store, self.api, self.worker))


class Yard:
    """Makes processes and nodes, and ends them all when it is left."""

    def __init__(self, folder: Path, migrated: Path) -> None:
        self._folder = folder
        self._migrated = migrated
        self._processes: list[Process] = []
        self._ports: set[int] = set()

    def __enter__(self) -> "Yard":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            if isinstance(process, StoreServer):
                process.client.close()

    def port(self) -> int:
        port = processes.free_port(random.randrange(*_PORTS), taken=self._ports)
        self._ports.add(port)
        return port

    def store(self, name: str, **settings: str) -> StoreServer:
        """A server that isn't started yet; ``settings`` are Redis's own."""
        server = StoreServer(name, self._folder / name, self.port(), **settings)
        self._processes.append(server)
        return server

    def process(self, name: str, *command: str, environment: dict[str, str]) -> Process:
        log = self._folder / f"{name}.log"
        process = Process(name, sys.executable, *command, log=log, environment=environment)
        self._processes.append(process)
        return process

    def environment(self, name: str, **settings: str) -> dict[str, str]:
        """A node's settings, with a database of its own that is migrated."""
        data = self._folder / f"{name}-data"
        if not data.exists():
            data.mkdir()
            shutil.copy(self._migrated, data / "reputation.sqlite3")
        defaults = {
            "NODE_NAME": name,
            "DATA_DIR": str(data),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "VCI_RATE_LIMIT": "6000",
            "CORE_WORKER_INTERVAL": "0.3",
            "PUBLIC_REFRESH_INTERVAL": "0.3",
            "PYTHONUNBUFFERED": "1",
        }
        return clean(**defaults, **settings)

    def worker(self, name: str, environment: dict[str, str]) -> Process:
        return self.process(name, "manage.py", "run_worker", environment=environment)

    def api(self, name: str, environment: dict[str, str], *, workers: int = 2) -> Process:
        command = ("-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", str(workers))
        return self.process(name, *command, environment=environment)

    def node(self, name: str, port: int, **settings: str) -> Node:
        store = self.store(f"{name}-store")
        environment = self.environment(name, PORT=str(port), REDIS_URL=store.url, **settings)
        api = self.api(f"{name}-api", environment)
        worker = self.worker(f"{name}-worker", environment)
        return Node(name, store, api, worker, port)
