"""A release as README.md has it: new code, a migration, then another gunicorn on systemd's socket.

systemd's part is the test's own: it binds the socket, hands it to each gunicorn that it starts
(sd_listen_fds(3)), and hears which process is the main one (sd_notify(3)).
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from proxy_site.local import embedded_redis
from tests.support.environment import clean
from tests.support.front import Front, needs_nginx, nginx
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, wait_for

pytestmark = needs_nginx

RATE = 20  # requests a second
LONGEST = 2.0  # seconds that one may take
NOW = "2025-08-15T10:00:00+07:00"

# Becomes gunicorn with the socket as file descriptor 3, as systemd starts a service.
AS_SYSTEMD = """
import os, sys
fd = int(sys.argv[1])
if fd != 3:
    os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("reputation", {before!r})]
    operations = [migrations.RunSQL("CREATE TABLE released (id integer)", "DROP TABLE released")]
"""


class Site:
    """A node's folder, as /opt/aipriceaction-proxy is one, and its API on a socket of systemd's."""

    name = "API"

    def __init__(self, folder: Path) -> None:
        self.code = folder / "node"
        self._log = folder / "api.log"
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = int(self._socket.getsockname()[1])
        self._api: subprocess.Popen[bytes] | None = None
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(folder / "notify"))
        # Settings in a file, as in production: the environment has no more than its name.
        self.settings = folder / "node.env"
        self.environment = clean(NOTIFY_SOCKET=str(folder / "notify"), PYTHONUNBUFFERED="1")
        self.environment["ENV_FILE"] = str(self.settings)
        self.data = folder / "data"
        lines = {
            "DATA_DIR": str(self.data),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "DEBUG_SYSTEM_TIME": NOW,
            "TRUSTED_PROXIES": "127.0.0.1",
            "PUBLIC_RATE": "1000/1s",
        }
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        for package in ("proxy_site", "gossip", "tickers", "reputation"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, self.code / package, ignore=ignored)
        for file in ("manage.py", "gunicorn.conf.py"):
            shutil.copy(ROOT / file, self.code / file)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def manage(self, *command: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=self.code,
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        # USR2 runs this command again, which gunicorn can't do of "python -m gunicorn".
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        options = ("-c", "gunicorn.conf.py", "--workers", "2")
        fd = self._socket.fileno()
        with self._log.open("ab") as log:
            self._api = subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, str(fd), gunicorn, *options],
                cwd=self.code,
                env=self.environment,
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def restart(self) -> None:
        """systemctl restart: SIGTERM, the work in hand is finished, and a new start."""
        assert self._api is not None
        self._api.terminate()
        assert self._api.wait(15) == 0
        self.start()

    def ask_to_hand_over(self) -> None:
        assert self._api is not None
        self._api.send_signal(signal.SIGUSR2)

    def hand_over(self) -> None:
        """USR2 to the main process; returns when it has ended, and another is the main one."""
        self.ask_to_hand_over()
        assert self._api is not None
        assert self._api.wait(60) == 0
        self.main = int(self._hear("MAINPID="))

    def _hear(self, name: str) -> str:
        """The value of the next message with this name."""
        self._notified.settimeout(10)
        while True:
            for line in self._notified.recv(4_096).decode().splitlines():
                if line.startswith(name):
                    return line.removeprefix(name)

    def close(self) -> None:
        if self._api is not None:
            # Its whole session: a master that USR2 started is in it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._api.pid, signal.SIGKILL)
            self._api.wait()
        self._socket.close()
        self._notified.close()

    def release(self) -> None:
        """The next release's code: it reads a setting that the running one doesn't know, in the
        settings and in gunicorn's configuration, and has a migration."""
        settings = self.code / "proxy_site" / "settings.py"
        text = settings.read_text()
        line = 'GIT_COMMIT = env.text("GIT_COMMIT")'
        assert text.count(line) == 1
        settings.write_text(text.replace(line, 'GIT_COMMIT = env.text("RELEASED", "released")'))
        migrations = self.code / "reputation" / "migrations"
        before = max(path.stem for path in migrations.glob("0*.py"))
        (migrations / "9999_released.py").write_text(MIGRATION.format(before=before))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        embedded_redis.ensure(site.data)
        site.manage("migrate", "--verbosity=0")
        site.start()
        yield site
    finally:
        site.close()
        embedded_redis.stop(site.data)


def a_bar(volume: int) -> dict[str, Any]:
    prices = {"open": 64_300, "high": 64_400, "low": 64_200, "close": 64_300}
    return {"symbol": "VCB", "time": "2025-08-15T00:00:00Z", **prices, "volume": volume}


class Load:
    """``RATE`` requests a second through nginx: reads from the cache and past it, and posts."""

    def __init__(self, front: Front) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._front, self._stop = front, threading.Event()
        self._volume = itertools.count(2_000)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(200) as pool:
            for number in itertools.count():
                if self._stop.wait(max(0.0, began + number / RATE - time.monotonic())):
                    return
                pool.submit(self._ask, number)

    def _ask(self, number: int) -> None:
        began = time.monotonic()
        try:
            status = self._answer(number)
        except requests.RequestException as error:
            self.failed.append(repr(error))
            return
        self.seconds.append(time.monotonic() - began)
        if status != 200:
            self.failed.append(f"{number}: {status}")

    def _answer(self, number: int) -> int:
        get = ("/tickers?limit=1", "/tickers/group", "/health", "/")
        if number % 5 < len(get):
            return self._front.get(get[number % 5]).status_code
        return post(self._front, next(self._volume))


def post(front: Front, volume: int) -> int:
    return front.request(
        "POST",
        "/gossip",
        data=json.dumps(a_bar(volume)),
        Content_Type="application/json",
        Authorization=f"Bearer {PRIMARY}",
    ).status_code


def fill(site: Site, front: Front) -> None:
    """A market of one bar: an empty one has nothing to serve, which is a 503."""

    def is_taken() -> bool:
        try:
            return post(front, 1_000) == 200
        except requests.RequestException:
            return False

    wait_for(is_taken, "the node to take a bar", site)


def commit(front: Front) -> str:
    try:
        return str(front.get("/health").json().get("git_commit", ""))
    except (requests.RequestException, ValueError):
        return ""


def release(site: Site, front: Front, replace: Callable[[], None]) -> Load:
    """The load that was on the node while it was released."""
    fill(site, front)
    with Load(front) as load:
        wait_for(lambda: len(load.seconds) > 2 * RATE, "requests to the old release", site)
        site.release()
        site.manage("migrate", "--verbosity=0")
        replace()
        wait_for(lambda: commit(front) == "released", "the new release", site)
        asked = len(load.seconds)
        wait_for(lambda: len(load.seconds) > asked + 2 * RATE, "requests to it", site)
    return load


@pytest.mark.slow
def test_a_release_fails_no_request_and_delays_none_for_long(site: Site, tmp_path: Path) -> None:
    with nginx(tmp_path / "front", site.port, limits=False) as front:
        load = release(site, front, site.hand_over)
    assert load.failed == []
    assert max(load.seconds) < LONGEST
    assert psutil.Process(site.main).is_running()


@pytest.mark.slow
def test_a_restart_fails_no_request(site: Site, tmp_path: Path) -> None:
    """They wait until the new API has started: a second where nothing else keeps the machine."""
    with nginx(tmp_path / "front", site.port, limits=False) as front:
        load = release(site, front, site.restart)
    assert load.failed == []


@pytest.mark.slow
def test_a_release_that_cant_start_leaves_the_one_that_runs(site: Site, tmp_path: Path) -> None:
    with nginx(tmp_path / "front", site.port, limits=False) as front:
        fill(site, front)
        with Load(front) as load:
            wait_for(lambda: len(load.seconds) > RATE, "requests", site)
            site.release()
            with site.settings.open("a") as settings:
                settings.write("TRUST_WINDOW=long\n")
            site.ask_to_hand_over()
            refusal = "TRUST_WINDOW must be a number"
            wait_for(lambda: refusal in site.log(), "a line in the log", site)
            asked = len(load.seconds)
            wait_for(lambda: len(load.seconds) > asked + RATE, "requests", site)
            assert commit(front) != "released"
    assert load.failed == []
