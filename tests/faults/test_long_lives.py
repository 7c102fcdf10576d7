"""Long lives: neither a worker nor a web process grows, however many cycles it has behind it.

Both are real processes on one store; the market moves all the time, one peer takes what it is sent,
one is away, and now and then the upstream's answer is cut off.
"""

import contextlib
import datetime as dt
import itertools
import re
from dataclasses import dataclass
from functools import partial
from statistics import median

import psutil
import pytest
import requests

from simulator.clock import AcceleratedClock
from simulator.faults import BodyFault
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.faults.test_clocks import Elsewhere
from tests.support.nodes import wait_for
from tests.support.yard import PRIMARY, Yard
from tickers.universe import Universe

pytestmark = pytest.mark.slow

MORNING = dt.datetime(2025, 8, 15, 9, 30, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 7, 1)
SYMBOLS = Universe.read().symbols[:20]
SPEED = 8.0  # of the exchange's clock: bars change all the time, and its day is long enough

# The command itself, at a pace that no setting allows.
QUICK_WORKER = """
import django
django.setup()
from django.conf import settings
from django.core.management import call_command
settings.CYCLE = 0.005
call_command("run_worker")
"""

SAMPLES = 40
A_LONG_LIFE = 10_000  # cycles
# Bytes in a long life: extrapolated from a short one, which still warms up, and measured in one.
EXTRAPOLATED, MEASURED = 100_000_000, 20_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    cycle: int
    memory: int  # bytes that are the process's alone
    files: int  # open ones, sockets among them
    threads: int

    @classmethod
    def of(cls, pid: int, cycle: int) -> "Sample":
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(
                cycle,
                process.memory_full_info().uss,
                process.num_fds(),
                process.num_threads(),
            )


def growth(samples: list[Sample]) -> float:
    """Bytes a cycle: the median of the steps from sample to sample.

    A leak shows in every step, while the allocator takes and gives back megabytes now and then.
    """
    return median(
        (after.memory - before.memory) / max(1, after.cycle - before.cycle)
        for before, after in itertools.pairwise(samples)
    )


def assert_steady(samples: list[Sample], *, most: float) -> None:
    """The second half of a life grows by less than ``most`` bytes in 10,000 cycles, and holds no
    more open files and threads than the first one, which warms up, did towards its end."""
    first, second = samples[SAMPLES // 4 : SAMPLES // 2], samples[SAMPLES // 2 :]
    for what in ("files", "threads"):
        before = median(getattr(sample, what) for sample in first)
        after = median(getattr(sample, what) for sample in second)
        assert after <= before + 1, f"{what}: {before}, then {after}"
    a_cycle = growth(second)
    assert a_cycle * A_LONG_LIFE < most, f"{a_cycle:.0f} bytes a cycle"


@dataclass
class Life:
    worker: list[Sample]
    web: list[Sample]
    log: str


def live(yard: Yard, cycles: int) -> Life:
    market = SimulatedMarket(
        Universe.read().only(SYMBOLS),
        clock=AcceleratedClock(MORNING, SPEED),
        seed=11,
        history_start=HISTORY_START,
    )
    with (
        contextlib.ExitStack() as stack,
        SimulatorServer(market) as exchange,
        Elsewhere(off=0) as peer,
    ):
        store = yard.store("store")
        store.start()
        port = yard.port()
        environment = yard.environment(
            "node",
            PORT=str(port),
            REDIS_URL=store.url,
            VCI_BASE_URL=exchange.url,
            INTERNAL_PEER_URLS=f"{peer.url},http://127.0.0.1:1",
            TICKERS=",".join(SYMBOLS),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=MORNING.isoformat(),
            DJANGO_SETTINGS_MODULE="proxy_site.settings",
            PUBLIC_RATE="100000/s",
        )
        api = yard.process(
            "api", "-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1",
            environment=environment,
        )  # fmt: skip
        worker = yard.process("worker", "-c", QUICK_WORKER, environment=environment)
        api.start()
        worker.start()
        client = stack.enter_context(requests.Session())
        visitor = Visitor(client, f"http://127.0.0.1:{port}")
        wait_for(visitor.can_start, "the market", seconds=60)
        web_pid = psutil.Process(api.pid).children()[0].pid
        life = Life([], [], "")
        start = visitor.cycle()
        faults = itertools.cycle((False,) * 4 + (True,))
        for number in range(1, SAMPLES + 1):
            due = start + cycles * number // SAMPLES
            if next(faults):
                exchange.fail_with_body(BodyFault.TRUNCATED, times=1)
            wait_for(partial(has_come_to, visitor, due), f"cycle {due}", seconds=600)
            life.worker.append(Sample.of(worker.pid, visitor.cycle()))
            life.web.append(Sample.of(web_pid, visitor.cycle()))
        life.log = worker.log()
        return life


@dataclass
class Visitor:
    """Whoever comes to a node: readers with and without an ETag, a follower, a peer, anyone."""

    client: requests.Session
    url: str
    etag: str = ""
    visits: int = 0

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.client.get(f"{self.url}{path}", headers=headers, timeout=30)

    def cycle(self) -> int:
        return int(self.get("/health").json()["iteration_count"])

    def can_start(self) -> bool:
        try:
            answer = self.get("/tickers")
            return answer.ok and len(answer.json()) == len(SYMBOLS)
        except requests.RequestException:
            return False

    def visit(self) -> int:
        """Every door once; returns the worker's cycle."""
        self.visits += 1
        self.get(f"/tickers?symbol=VCB&start_date=2025-07-{1 + self.visits % 28:02}")
        market = self.get("/tickers", **{"If-None-Match": self.etag})
        if self.etag:
            changes = self.get(f"/tickers/changes?since={self.etag[3:-1]}")
            assert changes.status_code in (200, 410)
        self.etag = market.headers["ETag"]
        symbol = SYMBOLS[self.visits % len(SYMBOLS)]
        bar = self.get(f"/tickers?symbol={symbol}&limit=1").json()[symbol][-1]
        token = {"Authorization": f"Bearer {PRIMARY}"}
        for path, headers in (("/gossip", token), ("/public/gossip", {}), ("/gossip", {})):
            self.client.post(f"{self.url}{path}", json=bar, headers=headers, timeout=30)
        # Each request of the last one comes through a connection of its own.
        requests.get(f"{self.url}/", timeout=30)
        return self.cycle()


def has_come_to(visitor: Visitor, cycle: int) -> bool:
    return visitor.visit() >= cycle


@pytest.fixture(scope="module")
def short_life(module_yard: Yard) -> Life:
    return live(module_yard, cycles=300)


def test_a_worker_keeps_its_size(short_life: Life) -> None:
    assert_steady(short_life.worker, most=EXTRAPOLATED)


def test_a_web_process_keeps_its_size(short_life: Life) -> None:
    assert_steady(short_life.web, most=EXTRAPOLATED)


def test_the_workers_log_is_plain_lines(short_life: Life) -> None:
    """No colours and no carriage returns where no terminal is."""
    lines = short_life.log.splitlines()
    assert len(lines) > 300
    plain = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z_.]+: [ -~]+")
    assert [line for line in short_life.log.split("\n")[:-1] if not plain.fullmatch(line)] == []


@pytest.mark.timeout(3_600)
def test_both_keep_their_size_over_10_000_cycles(yard: Yard) -> None:
    life = live(yard, cycles=A_LONG_LIFE)
    assert_steady(life.worker, most=MEASURED)
    assert_steady(life.web, most=MEASURED)
