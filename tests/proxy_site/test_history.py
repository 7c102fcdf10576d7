"""manage.py history and manage.py audit, as an operator runs them."""

import datetime as dt
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command

from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.bars import exchange_time
from tests.support.doors import forget
from tests.support.nodes import free_port
from tickers import wiring
from tickers.snapshot.series import bar_of
from tickers.store.store import ROOT, Store
from tickers.suspects import Reason
from tickers.universe import Universe

START = dt.date(2025, 7, 1)
NOW = exchange_time(dt.date(2025, 8, 15), 11)


@pytest.fixture
def exchange(clean_server: redis.Redis, settings: Any) -> Iterator[SimulatorServer]:
    """A node of two symbols that has fetched once, and no worker."""
    market = SimulatedMarket(
        Universe.read(), clock=AcceleratedClock(NOW, 0), seed=3, history_start=START
    )
    with SimulatorServer(market) as server:
        settings.VCI_BASE_URLS, settings.HISTORY_START = [server.url], START
        settings.DEBUG_SYSTEM_TIME = NOW
        settings.UNIVERSE = Universe.read().only(["VCB", "FPT"])
        settings.VCI_RATE_LIMIT = 6_000
        forget()
        run("audit", "VCB", "FPT")
        yield server
        forget()


def run(*arguments: str) -> str:
    said = StringIO()
    call_command(*arguments, stdout=said)
    return said.getvalue()


def closes(store: Store, symbol: str = "VCB") -> list[float]:
    [(_, rows)] = store.series([symbol])
    return [bar_of(encoded).close for _, encoded in rows]


def test_what_is_stored_is_shown_beside_what_the_source_says(exchange: SimulatorServer) -> None:
    assert "0 days differ" in run("history", "vcb")
    before = closes(wiring.store())
    exchange.adjust({"VCB": 0.5})
    said = run("history", "VCB")
    assert f"{len(before) - 1} days differ" in said
    assert "2025-08-14  stored" in said
    assert f"{before[-2]:,.2f}" in said
    assert closes(wiring.store()) == before, "it only shows"


def test_an_operator_accepts_what_is_beyond_ten_times(exchange: SimulatorServer) -> None:
    store = wiring.store()
    before = closes(store)
    exchange.adjust({"VCB": 0.05})
    assert "VCB: a suspect" in run("audit", "VCB")
    assert closes(store) == before
    assert "VCB is a suspect" in run("history", "VCB")
    assert "is taken" in run("history", "VCB", "--accept")
    assert closes(store)[0] < before[0] / 10
    assert store.suspects() == {}


def test_it_works_under_the_lease_of_a_worker_that_leads(exchange: SimulatorServer) -> None:
    store = wiring.store()
    fence = store.acquire_lease(60)
    assert fence
    exchange.adjust({"VCB": 0.5})
    run("history", "VCB", "--accept")
    assert store.leaders_fence() == fence


def test_a_symbol_is_forgotten(exchange: SimulatorServer) -> None:
    assert "is removed" in run("history", "VCB", "--forget")
    assert wiring.store().symbols() == ["FPT"]
    with pytest.raises(CommandError, match="isn't in the market"):
        run("history", "VCB", "--forget")


def test_an_audit_by_hand_says_what_it_found(exchange: SimulatorServer) -> None:
    store = wiring.store()
    whole = closes(store)
    store.client.ltrim(f"{ROOT}:bars:VCB", 5, -1)
    said = run("audit")
    assert said.startswith("2 series were read, 1 differed\nVCB: replaced")
    assert closes(store) == whole


def test_an_upstream_that_is_away_is_said(exchange: SimulatorServer) -> None:
    exchange.stop()
    with pytest.raises(CommandError, match="upstream"):
        run("history", "VCB")


def test_the_next_upstream_is_asked_where_the_first_is_away(
    exchange: SimulatorServer, settings: Any
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    settings.VCI_BASE_URLS = [away, *settings.VCI_BASE_URLS]
    forget()
    exchange.adjust({"VCB": 0.5})
    assert "VCB: replaced" in run("audit", "VCB")


def test_the_reasons_that_need_an_operator_are_one() -> None:
    assert [reason for reason in Reason if reason.needs_operator] == [Reason.BEYOND]
