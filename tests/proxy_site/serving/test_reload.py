"""HUP: a running gunicorn takes new settings without a failed request, or stays as it is."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from proxy_site.local.processes import Processes
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, free_port, wait_for

PACKAGES = {"proxy_site", "gossip", "simulator", "tickers", "reputation"}
# What each reload leaves behind for the test: the modules that the master has.
TELL = """
import json, pathlib, sys
def on_reload(server):
    pathlib.Path({file!r}).write_text(json.dumps(sorted(sys.modules)))
"""


@dataclass
class Api:
    """A node's API whose settings lie in a file, as in production; it needs no Redis."""

    name: str
    port: int
    folder: Path
    master: int = 0

    def write(self, **settings: str) -> None:
        lines = {
            "ENVIRONMENT": "production",
            "ALLOWED_HOSTS": "127.0.0.1",
            "SECRET_KEY": "reload-test-key-0123456789-abcdefghijklmnopqrstuvwxyz",
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "INTERNAL_PEER_URLS": "",
            "PUBLIC_PEER_URLS": "",
            "REDIS_URL": "redis://127.0.0.1:9/0",
            "DATA_DIR": str(self.folder),
            "PORT": str(self.port),
            **settings,
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        (self.folder / "node.env").write_text(text)

    def get(self, path: str, **headers: str) -> requests.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.get(url, headers=headers, allow_redirects=False, timeout=10)

    def listens(self) -> bool:
        try:
            return self.get("/nothing").status_code == 404
        except requests.ConnectionError:
            return False

    def believes_https(self) -> bool:
        """Whether this machine is a trusted proxy: the admin isn't redirected to HTTPS."""
        return self.get("/admin/", **{"X-Forwarded-Proto": "https"}).status_code == 302

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.master).children()}

    def hang_up(self) -> None:
        os.kill(self.master, signal.SIGHUP)

    def log(self) -> str:
        return (self.folder / "api.log").read_text(errors="replace")

    @property
    def told(self) -> Path:
        return self.folder / "modules"


@pytest.fixture(scope="module")
def _api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("reload")
    api = Api("API", free_port(), folder)
    api.write()
    conf = folder / "gunicorn.conf.py"
    conf.write_text((ROOT / "gunicorn.conf.py").read_text() + TELL.format(file=str(api.told)))
    with Processes() as processes:
        api.master = processes.start(
            "API",
            sys.executable,
            *("-m", "gunicorn", "-c", str(conf), "--workers", "2"),
            env=clean() | {"ENV_FILE": str(folder / "node.env")},
            cwd=ROOT,
            log=folder / "api.log",
        )
        wait_for(api.listens, "the API to listen", api)
        yield api


@pytest.fixture
def api(_api: Api) -> Iterator[Api]:
    """One API for all tests: each leaves a file of settings that workers can start with."""
    yield _api
    _api.write()


class Readers:
    """Ask again and again, on new connections and on kept ones; ``failed`` says what failed."""

    def __init__(self, api: Api) -> None:
        self.failed: list[str] = []
        self.answered = 0
        self._api, self._stop = api, threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(keeps,)) for keeps in (True, False)
        ]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, keeps: bool) -> None:
        url = f"http://127.0.0.1:{self._api.port}/tickers/group"
        with requests.Session() as session:
            while not self._stop.wait(0.02):
                headers = {} if keeps else {"Connection": "close"}
                try:
                    status = session.get(url, headers=headers, timeout=10).status_code
                except requests.RequestException as error:
                    self.failed.append(repr(error))
                else:
                    self.answered += 1
                    if status != 200:
                        self.failed.append(str(status))


def test_new_settings_are_taken_without_a_failed_request(api: Api) -> None:
    old = api.workers()
    assert not api.believes_https()
    with Readers(api) as readers:
        api.write(TRUSTED_PROXIES="127.0.0.1", NODE_NAME="renamed")
        api.hang_up()
        wait_for(lambda: not old & api.workers(), "other workers", api)
        asked = readers.answered
        wait_for(lambda: readers.answered > asked + 20, "answers of theirs", api)
    assert readers.failed == []
    assert api.believes_https()
    assert api.get("/health").json()["node_name"] == "renamed"


def test_the_master_has_no_settings_that_its_workers_would_inherit(api: Api) -> None:
    """The test before this one made it reload."""
    modules: list[str] = json.loads(api.told.read_text())
    ours = {name for name in modules if name.split(".")[0] in PACKAGES}
    assert {"proxy_site.serving.gunicorn_worker", "reputation.address"} <= ours
    assert {name.split(".")[0] for name in ours} == {"proxy_site", "reputation"}
    assert [name for name in ours if "settings" in name or "environment" in name] == []
    assert [name for name in modules if name.split(".")[0] in ("django", "environ")] == []


def test_a_wrong_setting_leaves_the_workers_as_they_are(api: Api) -> None:
    old = api.workers()
    api.write(TRUSTED_PROXIES="everybody")
    api.hang_up()
    wait_for(lambda: "Not reloaded" in api.log(), "a line in the log", api)
    assert "TRUSTED_PROXIES must be IP addresses or networks" in api.log()
    assert api.workers() == old
    assert api.get("/tickers/group").status_code == 200


def test_a_wrong_setting_costs_no_worker_but_the_one_that_starts(api: Api) -> None:
    """As a worker is recycled while somebody writes the file. The next one pauses first."""
    first, second = sorted(api.workers())
    api.write(TRUST_WINDOW="long")
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: "TRUST_WINDOW must be a number" in api.log(), "a line in the log", api)
    assert second in api.workers()
    assert api.get("/tickers/group").status_code == 200
    assert api.log().count("TRUST_WINDOW must be a number") == 1


def test_a_wrong_setting_ends_the_start_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
        cwd=ROOT,
        env=clean(PRIMARY_TOKEN=PRIMARY, SECONDARY_TOKEN=SECONDARY, PORT="many"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        "aipriceaction-proxy: PORT must be a whole number. Example: PORT=3000\n"
    )


def test_a_start_outlives_the_kill_of_the_process_that_reads_the_settings(tmp_path: Path) -> None:
    """What the kernel kills for memory says nothing of the settings."""
    api = Api("API", free_port(), tmp_path)
    api.write()
    with Processes() as processes:
        api.master = processes.start(
            "API",
            *(sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1"),
            env=clean() | {"ENV_FILE": str(tmp_path / "node.env")},
            cwd=ROOT,
            log=tmp_path / "api.log",
        )
        wait_for(api.workers, "a child", api)
        os.kill(api.workers().pop(), signal.SIGKILL)
        wait_for(api.listens, "the API to listen", api)
