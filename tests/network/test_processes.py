"""The commands that an operator runs, as real processes."""

import contextlib
import datetime as dt
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest
import redis
import requests

from proxy_site.local import embedded_redis, processes
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.environment import clean
from tests.support.nodes import ROOT, free_port, run, wait_for
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 7, 1)


@pytest.fixture
def exchange() -> Iterator[SimulatorServer]:
    market = SimulatedMarket(
        Universe.read(), clock=AcceleratedClock(NOON, 0), seed=5, history_start=HISTORY_START
    )
    with SimulatorServer(market) as server:
        yield server


@pytest.fixture
def environment(exchange: SimulatorServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A migrated node's environment; its server is up while the test runs."""
    data = tmp_path / "data"
    variables = clean(
        PRIMARY_TOKEN="processes-primary",
        SECONDARY_TOKEN="processes-secondary",
        DATA_DIR=str(data),
        PORT=str(free_port()),
        VCI_BASE_URL=exchange.url,
        VCI_RATE_LIMIT="6000",
        CORE_WORKER_INTERVAL="0.2",
        HISTORY_START=HISTORY_START.isoformat(),
        DEBUG_SYSTEM_TIME=NOON.isoformat(),
        PYTHONUNBUFFERED="1",
    )
    embedded_redis.ensure(data)
    run(variables, "manage.py", "migrate", "--verbosity=0")
    yield variables
    embedded_redis.release(data)


@contextlib.contextmanager
def started(
    environment: dict[str, str], log: Path, *command: str
) -> "Iterator[subprocess.Popen[bytes]]":
    output: IO[bytes]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def says(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def wait_until_it_says(log: Path, text: str, *, seconds: float = 30) -> None:
    try:
        wait_for(lambda: says(log, text), f"the line {text!r}", seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from None


def test_once_fills_the_market_and_exits_with_0(environment: dict[str, str]) -> None:
    done = run(environment, "manage.py", "run_worker", "--once")
    assert "287 series replaced" in done.stdout


def test_once_exits_with_1_when_the_upstream_is_away(
    environment: dict[str, str], exchange: SimulatorServer
) -> None:
    exchange.fail_with_status(404)
    done = subprocess.run(
        [sys.executable, "manage.py", "run_worker", "--once"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the upstream answered 404" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_worker_within_5_s_even_while_the_upstream_hangs(
    environment: dict[str, str], exchange: SimulatorServer, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "worker.log"
    exchange.set_latency(60)
    with started(environment, log, "manage.py", "run_worker") as process:
        wait_until_it_says(log, "leading")
        wait_for(lambda: exchange.stats().get("requests"), "a request under way")
        process.send_signal(number)
        assert process.wait(5) == 0
    assert says(log, "the worker has left")


@pytest.mark.slow
def test_a_killed_leader_is_replaced_within_10_s(
    environment: dict[str, str], tmp_path: Path
) -> None:
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    with started(environment, first_log, "manage.py", "run_worker") as first:
        wait_until_it_says(first_log, "cycle 1:")
        with started(environment, second_log, "manage.py", "run_worker"):
            wait_until_it_says(second_log, "standing by")
            first.kill()
            killed_at = time.monotonic()
            wait_until_it_says(second_log, "cycle 1:", seconds=10)
            assert time.monotonic() - killed_at < 10


def test_a_node_in_one_command_serves_and_leaves_nothing_behind(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "node.log"
    url = f"http://127.0.0.1:{environment['PORT']}"
    with started(environment, log, "manage.py", "run_node") as process:
        wait_until_it_says(log, f"listens on {url}")
        wait_until_it_says(log, "cycle 1:")
        assert len(requests.get(f"{url}/tickers?limit=1", timeout=10).json()) == 287
        css = requests.get(f"{url}/static/admin/css/base.css", timeout=10)
        assert css.status_code == 200
        assert css.headers["Content-Type"].startswith("text/css")
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/health", timeout=2)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_followed_by_another_that_leads(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "node.log"
    url = f"http://127.0.0.1:{environment['PORT']}/health"

    def leader() -> int:
        """The id of the process that told of the last cycle; 0 before any did."""
        try:
            return int(requests.get(url, timeout=10).json()["worker"].get("pid", 0))
        except requests.ConnectionError:
            return 0

    with started(environment, log, "manage.py", "run_node") as process:
        wait_for(leader, "a worker that leads")
        first = leader()
        assert psutil.Process(first).parent() == psutil.Process(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_until_it_says(log, "the worker was ended by SIGKILL; it starts again in 1 s")
        wait_for(lambda: leader() not in (0, first), "another worker that leads")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


@pytest.mark.slow
def test_an_api_that_is_killed_is_followed_by_another_on_its_port(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "node.log"
    url = f"http://127.0.0.1:{environment['PORT']}/tickers/group"
    with started(environment, log, "manage.py", "run_node") as process:
        wait_until_it_says(log, "cycle 1:")
        (api,) = (
            child
            for child in psutil.Process(process.pid).children()
            if "gunicorn" in child.cmdline()
        )
        workers = api.children()
        assert workers
        api.kill()
        wait_until_it_says(log, "the API was ended by SIGKILL; it starts again in 1 s")
        _, left = psutil.wait_procs(workers, timeout=20)
        assert not left
        wait_for(lambda: answers_at(url), "another API")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def answers_at(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def test_a_busy_port_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", int(environment["PORT"])))
        busy.listen()
        with started(environment, log, "manage.py", "run_node") as process:
            assert process.wait(20) == 1
    assert says(log, f"port {environment['PORT']} is in use")


def test_the_demo_shows_a_market_that_moves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    environment = clean(PORT=str(free_port()), PYTHONUNBUFFERED="1")
    with started(environment, log, "-m", "proxy_site.local.demo") as process:
        wait_until_it_says(log, "Ctrl-C stops everything", seconds=90)
        text = log.read_text()
        core, public = re.findall(r"node +(http://127\.0\.0\.1:\d+)/", text)
        password = re.search(r"password: (\S+)", text)
        assert password
        log_in(core, password[1])
        wait_for(lambda: re.search(r" [1-9]\d* moved", log.read_text()), "something that moved")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    for url in (core, public):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=2)
    for name in ("core", "public"):
        server = redis.Redis.from_url(embedded_redis.url(ROOT / "var" / "demo" / name))
        with server, pytest.raises(redis.ConnectionError):
            server.ping()


def log_in(url: str, password: str) -> None:
    """As a person would: the form's token, then the login, then the page behind it."""
    session = requests.Session()
    page = session.get(f"{url}/admin/login/", timeout=10)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    form = {
        "username": "admin",
        "password": password,
        "csrfmiddlewaretoken": token[1],
        "next": "/admin/reputation/actor/",
    }
    answer = session.post(f"{url}/admin/login/", data=form, timeout=10)
    assert answer.status_code == 200
    assert "Select actor to change" in answer.text


def test_the_demo_takes_another_port_when_its_own_is_busy() -> None:
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert processes.free_port(port, taken=set()) > port
