"""A real web process: its limit holds what it takes from the system."""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import requests
from django.conf import settings

from proxy_site.local.processes import Processes
from tests.support.bars import FRIDAY, a_store, bar, lead, trading_days_before
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, free_port, wait_for
from tickers.bar import epoch_of
from tickers.verdict import Authority

SYMBOLS, BARS = 400, 300
MEGABYTE = 2**20


def environment(folder: Path, **variables: str) -> dict[str, str]:
    tokens = {"PRIMARY_TOKEN": PRIMARY, "SECONDARY_TOKEN": SECONDARY}
    return clean(DATA_DIR=str(folder), **tokens, **variables)


def run(program: str, folder: Path) -> Any:
    """What a Python process that could be a web process prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(folder, REDIS_URL="redis://127.0.0.1:9/0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_garbage_collection_leaves_alone_what_was_there_before_the_first_request(
    tmp_path: Path,
) -> None:
    program = """
import gc, json
from proxy_site.wsgi import application
before = gc.get_freeze_count()
from django.test import Client
Client().get("/tickers/group")
print(json.dumps([before, len(gc.get_objects())]))
"""
    frozen, looked_at = run(program, tmp_path)
    assert looked_at < frozen / 4


THREADS_WITH_LARGE_BLOCKS = """
import sys, threading
import psutil
from proxy_site.serving import process_memory

def work():
    for size in range(20_000_000, 20_500_000, 100_000):
        block = b"x" * size
        other = block + b"y"
        del block, other

if sys.argv[1] == "given back":
    process_memory.give_back_large_blocks()
before = psutil.Process().memory_info().rss
for _ in range(4):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps them")
def test_a_large_block_that_is_freed_goes_back_to_the_system() -> None:
    kept, given_back = (
        int(
            subprocess.check_output(
                [sys.executable, "-c", THREADS_WITH_LARGE_BLOCKS, how], cwd=ROOT
            )
        )
        for how in ("kept", "given back")
    )
    assert kept > 20 * MEGABYTE
    assert given_back < 5 * MEGABYTE


@pytest.fixture
def market(clean_server: redis.Redis) -> str:
    """15 MB of bars; the address of the store that has them."""
    store = a_store(clean_server)
    fence = lead(store)
    days = [*trading_days_before(FRIDAY, BARS - 1), FRIDAY]
    for number in range(SYMBOLS):
        bars = [bar(f"S{number:03}", day, volume=number * 1_000 + day.day) for day in days]
        store.replace_series(
            bars[0].symbol, bars, Authority.CORE, fence=fence, history_start=epoch_of(days[0])
        )
    store.complete_cycle(fence=fence)
    return str(settings.REDIS_URL)


@contextmanager
def web_process(folder: Path, redis_url: str, limit: int) -> Iterator[tuple[str, psutil.Process]]:
    """Its address, and the worker that answers there."""
    port = free_port()
    variables = environment(
        folder,
        REDIS_URL=redis_url,
        PORT=str(port),
        SNAPSHOT_MEMORY=str(limit),
        DEBUG_SYSTEM_TIME="2025-08-15T10:00:00+07:00",
    )
    command = ["-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1"]
    url, log = f"http://127.0.0.1:{port}", folder / "node.log"
    folder.mkdir(parents=True, exist_ok=True)
    with Processes() as processes:
        processes.start("API", sys.executable, *command, env=variables, cwd=ROOT, log=log)

        def answers() -> bool:
            assert not processes.fallen(), log.read_text()
            try:
                return requests.get(f"{url}/tickers/group", timeout=10).status_code == 200
            except requests.ConnectionError:
                return False

        wait_for(answers, "gunicorn to answer")
        masters = [child for child in psutil.Process().children() if "gunicorn" in _command(child)]
        (worker,) = [worker for master in masters for worker in master.children()]
        yield url, worker


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def grown_by_reading(folder: Path, redis_url: str, limit: int) -> tuple[float, set[str]]:
    """How many MB more a process takes for reading the market in every way; what it answered."""
    with web_process(folder, redis_url, limit) as (url, worker):
        before, digests = worker.memory_info().rss, set()
        for _ in range(3):
            for coding in ("identity", "gzip", "zstd"):
                answer = requests.get(
                    f"{url}/tickers", headers={"Accept-Encoding": coding}, timeout=60
                )
                assert answer.headers.get("Content-Encoding", "identity") == coding
                digests.add(hashlib.sha256(answer.content).hexdigest())
        return (worker.memory_info().rss - before) / MEGABYTE, digests


def test_a_process_keeps_to_its_limit(market: str, tmp_path: Path) -> None:
    """Both read the same bytes; one holds the market of 15 MB and its bodies, the other 2 MB."""
    unlimited, whole = grown_by_reading(tmp_path / "unlimited", market, 512)
    limited, in_parts = grown_by_reading(tmp_path / "limited", market, 2)
    assert len(whole) == 1
    assert in_parts == whole
    assert unlimited > 30  # so the other figure means something
    assert limited < 12
