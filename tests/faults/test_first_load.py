"""A first load from an upstream whose answers hold nothing usable: it fails, and says what came."""

import datetime as dt
import subprocess
import sys

from simulator.clock import AcceleratedClock
from simulator.faults import BodyFault
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import ROOT
from tests.support.yard import Yard
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(["VCB", "FPT", "ACB"])


def once(
    yard: Yard, exchange: SimulatorServer, store_url: str
) -> "subprocess.CompletedProcess[str]":
    environment = yard.environment(
        "core",
        REDIS_URL=store_url,
        VCI_BASE_URL=exchange.url,
        VCI_BATCH_SIZE="1",
        TICKERS=",".join(UNIVERSE.symbols),
        HISTORY_START=HISTORY_START.isoformat(),
        DEBUG_SYSTEM_TIME=NOON.isoformat(),
    )
    return subprocess.run(
        [sys.executable, "manage.py", "run_worker", "--once"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_ends_with_1_and_an_error_that_says_what_came(yard: Yard) -> None:
    market = SimulatedMarket(
        UNIVERSE, clock=AcceleratedClock(NOON, 0), seed=3, history_start=HISTORY_START
    )
    store = yard.store("core-store")
    store.start()
    with SimulatorServer(market) as exchange:
        for fault, came in (
            (BodyFault.EMPTY_COLUMNS, "no usable bar"),
            (BodyFault.TEXTS, "open is not a number"),
            (BodyFault.MILLISECONDS, "time must be epoch seconds"),
            (BodyFault.NULLS, "open is null"),
        ):
            exchange.fail_with_body(fault)
            done = once(yard, exchange, store.url)
            assert done.returncode == 1, fault
            errors = [line for line in done.stdout.splitlines() if " ERROR " in line]
            assert any(came in line for line in errors), done.stdout
        exchange.clear_fault()
        assert once(yard, exchange, store.url).returncode == 0
