"""Clocks: a node whose clock is wrong says so, and nothing but the market clock decides on days."""

import ast
import datetime as dt
import email.utils
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from proxy_site.management.commands.run_worker import make_worker
from simulator import protocol
from simulator.clock import AcceleratedClock
from simulator.loopback import LoopbackServer
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.doors import CLIENT, forget
from tests.support.nodes import wait_for
from tickers import wiring
from tickers.clock_skew import FRESH, ClockSkew, SourceKind, complaints
from tickers.universe import Universe

ROOT = Path(__file__).resolve().parents[2]
HISTORY_START = dt.date(2025, 8, 1)
SYMBOLS = Universe.read().only(["VCB", "FPT"])
BAR = {"open": 100, "high": 110, "low": 90, "close": 100, "volume": 5}
MARKET = {"VCB": [{"symbol": "VCB", "time": "2025-08-15T00:00:00Z", **BAR}]}
LOGGER = "tickers.clock_skew"


# --- Nodes and an exchange whose Date is wrong ----------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """A node: it takes every bar, and its market has one."""

    protocol_version = "HTTP/1.1"
    server: "Elsewhere"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"{}")

    def do_GET(self) -> None:
        found = self.path.startswith("/tickers?")
        self._answer(200 if found else 404, json.dumps(MARKET if found else {}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.answered.set()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return email.utils.formatdate(time.time() + self.server.off, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        """The tests' output stays readable."""


class Elsewhere(LoopbackServer):
    def __init__(self, off: float) -> None:
        super().__init__(_Handler)
        self.off = off  # seconds that its clock is ahead of ours
        self.answered = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def exchange(settings: Any, clean_server: object) -> Iterator[SimulatorServer]:
    """The upstream of a node with two symbols; `make_worker` puts its worker together."""
    market = SimulatedMarket(
        SYMBOLS,
        clock=AcceleratedClock(settings.DEBUG_SYSTEM_TIME, 0),
        seed=1,
        history_start=HISTORY_START,
    )
    settings.UNIVERSE, settings.HISTORY_START = SYMBOLS, HISTORY_START
    settings.VCI_RATE_LIMIT = 6_000
    forget()
    with SimulatorServer(market) as server:
        settings.VCI_BASE_URLS = [server.url]
        yield server
    forget()


def set_clock(monkeypatch: pytest.MonkeyPatch, *, off: float) -> None:
    """The simulator says a Date that is wrong by ``off`` seconds."""
    monkeypatch.setattr(
        protocol._Handler,
        "date_time_string",
        lambda *_: email.utils.formatdate(time.time() + off, usegmt=True),
    )


def cycle(times: int = 1) -> None:
    worker = make_worker(threading.Event())
    for _ in range(times):
        worker.run_once()


def health() -> dict[str, Any]:
    return dict(CLIENT.get("/health").json())


def clock_problems() -> list[str]:
    return [line for line in health()["problems"] if "clock" in line]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


# --- The whole way, from a real answer to the log and /health -------------------------------------


@pytest.mark.django_db(transaction=True)
class TestANodeWhoseClockIsWrong:
    @pytest.mark.parametrize(("off", "words"), [(95, "behind"), (-95, "ahead of")])
    def test_says_so_by_the_upstreams_clock(
        self,
        exchange: SimulatorServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        off: float,
        words: str,
    ) -> None:
        set_clock(monkeypatch, off=off)
        with caplog.at_level(logging.INFO, logger=LOGGER):
            cycle(times=3)
        assert health()["clock_skew_secs"] == {"upstream": pytest.approx(-off, abs=10)}
        (line,) = clock_problems()
        assert f"s {words} that of the upstream" in line
        (said,) = told(caplog)  # once, not with each request
        assert f"s {words} that of the upstream" in said

    def test_says_so_by_the_core_networks_clock(self, exchange: object, settings: Any) -> None:
        with Elsewhere(off=3_600) as core:
            settings.IS_PUBLIC_NODE, settings.CORE_NETWORK_URLS = True, [core.url]
            cycle()
        assert health()["clock_skew_secs"] == {"core_network": pytest.approx(-3_600, abs=10)}
        (line,) = clock_problems()
        assert "s behind that of the core network" in line

    def test_says_so_by_its_peers_clocks(self, exchange: object, settings: Any) -> None:
        with Elsewhere(off=-50) as internal, Elsewhere(off=70) as public:
            settings.INTERNAL_PEER_URLS = [internal.url]
            settings.PUBLIC_PEER_URLS = [public.url]
            # A peer is heard when it is sent something, and told of with the next cycle.
            worker = make_worker(threading.Event())
            worker.run_once()
            assert internal.answered.wait(10)
            assert public.answered.wait(10)
            worker.run_once()
            skews = health()["clock_skew_secs"]
            assert skews["internal_peers"] == pytest.approx(50, abs=10)
            assert skews["public_peers"] == pytest.approx(-70, abs=10)
            assert skews["upstream"] == pytest.approx(0, abs=10)
            problems = clock_problems()
            assert len(problems) == 2
            assert internal.url not in str(problems) + str(skews)

    def test_a_right_clock_is_not_complained_of(
        self, exchange: SimulatorServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger=LOGGER):
            cycle(times=2)
        assert health()["clock_skew_secs"] == {"upstream": pytest.approx(0, abs=10)}
        assert clock_problems() == []
        assert told(caplog) == []

    def test_a_clock_that_is_set_right_is_said_right(
        self,
        exchange: SimulatorServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        worker = make_worker(threading.Event())
        with caplog.at_level(logging.INFO, logger=LOGGER):
            set_clock(monkeypatch, off=200)
            worker.run_once()
            assert clock_problems()
            set_clock(monkeypatch, off=0)
            wait_for(lambda: worker.run_once() and not clock_problems(), "a right clock")
        assert told(caplog)[1:] == ["this node's clock agrees with that of the upstream again"]

    def test_its_wrong_clock_moves_no_age(
        self, exchange: SimulatorServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ages are Redis TIME's: a clock that is a day ahead closes no trust window."""
        cycle()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        assert health()["last_trusted_update_age_secs"] < 60
        age = wiring.store().state().age
        assert age is not None
        assert age < 60


# --- What is taken from a Date --------------------------------------------------------------------


class Clocks:
    """A node's clock that says what the test wants; the others' Date is always this."""

    DATE = "Fri, 15 Aug 2025 03:00:00 GMT"
    AT = dt.datetime(2025, 8, 15, 3, tzinfo=dt.UTC).timestamp()

    def __init__(self) -> None:
        self.ahead = 0.0
        self.elapsed = 0.0
        self.skew = ClockSkew(
            wall_time=lambda: self.AT + self.ahead, monotonic=lambda: self.elapsed
        )

    def observe(
        self,
        *skews: float,
        source: str = "",
        date: str | None = DATE,
        age: str | None = None,
        kind: SourceKind = SourceKind.INTERNAL_PEERS,
    ) -> None:
        for self.ahead in skews:
            self.skew.observe(kind=kind, source=source, date=date, age=age)

    @property
    def seconds(self) -> float:
        return self.skew.seconds()["internal_peers"]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


class TestSkew:
    def test_thirty_seconds_are_tolerated(self, clocks: Clocks) -> None:
        clocks.observe(30)
        assert clocks.seconds == 30
        assert complaints(clocks.skew.seconds()) == []
        clocks.observe(31, 31, 31)
        assert complaints(clocks.skew.seconds()) == [
            "this node's clock is 31 s ahead of that of the internal peers: "
            "check its time synchronisation (NTP)"
        ]

    def test_one_late_answer_changes_nothing(self, clocks: Clocks) -> None:
        clocks.observe(1, 0, 500, 1, 0)
        assert clocks.seconds == 1

    def test_one_peer_with_a_wrong_clock_is_not_this_nodes_fault(self, clocks: Clocks) -> None:
        clocks.observe(*[7_200] * 5, source="wrong")
        clocks.observe(1, source="right")
        assert clocks.seconds == 1
        clocks.observe(2, source="right too")
        assert clocks.seconds == 2

    def test_most_peers_against_us_are(self, clocks: Clocks) -> None:
        for source, skew in (("a", -100), ("b", -101), ("c", 0)):
            clocks.observe(skew, source=source)
        assert clocks.seconds == -100

    def test_an_answer_from_a_cache_is_as_old_as_it_says(self, clocks: Clocks) -> None:
        clocks.observe(45, age="45")
        assert clocks.seconds == 0

    @pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 35 Aug 2025 03:00:00 GMT"])
    def test_a_date_that_cant_be_read_teaches_nothing(
        self, clocks: Clocks, date: str | None
    ) -> None:
        clocks.observe(100, date=date)
        assert clocks.skew.seconds() == {}

    def test_what_was_heard_long_ago_is_forgotten(self, clocks: Clocks) -> None:
        clocks.observe(100, source="a peer that is away")
        clocks.elapsed += FRESH + 1
        assert clocks.skew.seconds() == {}
        clocks.observe(0, source="another")
        assert clocks.seconds == 0

    def test_kinds_are_told_apart(self, clocks: Clocks) -> None:
        clocks.observe(100, kind=SourceKind.UPSTREAM)
        clocks.observe(0, kind=SourceKind.PUBLIC_PEERS)
        assert clocks.skew.seconds() == {"upstream": 100, "public_peers": 0}


# --- Days are the market clock's ------------------------------------------------------------------

# What asks the machine's clock, and why that decides nothing about days.
ASKS_THE_WALL_CLOCK = {
    "tickers/market_clock.py": "the market clock itself",
    "tickers/clock_skew.py": "compares it with others'",
    "tickers/cycle_report.py": "when a cycle started, for people",
    "tickers/retry_after.py": "a Retry-After that is a date",
    "gossip/delivery/backoff.py": "a Retry-After that is a date",
    "gossip/delivery/delivery.py": "since when peers are away, for people",
    "gossip/doors/views.py": "how long a ban still lasts, for its sender",
    "gossip/doors/recording.py": "how long a ban still lasts, for its sender",
    "proxy_site/worker.py": "when the worker told, for /health",
    "proxy_site/problem_webhook.py": "since when a problem is there, for people",
    "proxy_site/health.py": "how long ago that was, for people",
    "proxy_site/ownership.py": "since when a store is a node's, for people",
    "proxy_site/doctor/network.py": "compares it with Redis's",
    "proxy_site/local/demo.py": "the session that a rehearsal begins with",
    "simulator/__main__.py": "the session that a rehearsal begins with",
    "reputation/actors.py": "when a ban ends, and how far scores have faded",
    "reputation/appeals.py": "how old a failure is that is appealed",
    "reputation/admin.py": "whether a ban has ended, and how far a chart goes",
    "reputation/update_counts.py": "in which hour bars were counted, for people",
    "reputation/models.py": "when a row was written",
    "reputation/prune.py": "how old a row is",
}
CLOCKS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
    *("dt.datetime.now", "dt.datetime.today", "dt.datetime.utcnow", "dt.date.today"),
    *("datetime.now", "datetime.today", "datetime.utcnow", "date.today"),
    *("timezone.now", "timezone.localtime", "timezone.localdate"),
}


def asks_the_wall_clock(source: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) in CLOCKS
        for node in ast.walk(ast.parse(source))
    )


def test_only_the_market_clock_says_which_day_it_is() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for package in ("tickers", "gossip", "reputation", "simulator", "proxy_site")
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts and asks_the_wall_clock(path.read_text(encoding="utf-8"))
    }
    assert asking == set(ASKS_THE_WALL_CLOCK), "a decision about days asks MarketClock"
