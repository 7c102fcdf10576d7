"""A node with several upstreams: exchanges that fail, and another node's door."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from proxy_site.management.commands.run_worker import make_worker
from proxy_site.worker import Worker
from simulator import protocol
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.doors import CLIENT, forget
from tickers import wiring
from tickers.universe import Universe
from tickers.vci.client import source_name
from tickers.vci.door import DATA_AGE, NODE_PATH
from tickers.verdict import Authority

HISTORY_START = dt.date(2025, 8, 1)
UNIVERSE = Universe.read().only(["VCB", "FPT", "ACB"])

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def exchanges(settings: Any, clean_server: object) -> Iterator[list[SimulatorServer]]:
    """Two exchanges of the same bars, both of which the node may ask."""
    settings.UNIVERSE, settings.HISTORY_START = UNIVERSE, HISTORY_START
    settings.VCI_RATE_LIMIT = 6_000
    clock = AcceleratedClock(settings.DEBUG_SYSTEM_TIME, 0)
    forget()
    with ExitStack() as servers:
        made = [
            servers.enter_context(
                SimulatorServer(
                    SimulatedMarket(UNIVERSE, clock=clock, seed=1, history_start=HISTORY_START)
                )
            )
            for _ in range(2)
        ]
        settings.VCI_BASE_URLS = [server.url for server in made]
        yield made
    forget()


@pytest.fixture
def worker(exchanges: list[SimulatorServer]) -> Worker:
    return make_worker(threading.Event())


def answered(exchange: SimulatorServer) -> int:
    return exchange.counters["requests"]


def health() -> dict[str, Any]:
    return dict(CLIENT.get("/health").json())


def make_doors(monkeypatch: pytest.MonkeyPatch, headers: dict[int, dict[str, str]]) -> None:
    """The exchanges on these ports say that they are doors."""
    end_headers = protocol._Handler.end_headers

    def with_headers(self: protocol._Handler) -> None:
        for name, value in headers.get(self.server.port, {}).items():
            self.send_header(name, value)
        end_headers(self)

    monkeypatch.setattr(protocol._Handler, "end_headers", with_headers)


def test_the_first_is_used_and_the_other_left_in_peace(
    exchanges: list[SimulatorServer], worker: Worker
) -> None:
    assert worker.run_once()
    assert [answered(each) > 0 for each in exchanges] == [True, False]
    assert health()["worker"]["upstream"]["in_use"] == source_name(exchanges[0].url)


def test_the_other_takes_over_in_the_cycle_in_which_the_first_refuses(
    exchanges: list[SimulatorServer], worker: Worker
) -> None:
    assert worker.run_once()
    first, second = exchanges
    first.fail_with_status(400)
    assert worker.run_once()
    assert answered(second) > 0
    asked = answered(first)
    assert worker.run_once()
    assert answered(first) == asked
    assert set(wiring.store().symbols()) == set(UNIVERSE.symbols)
    body = health()
    assert body["worker"]["upstream"]["in_use"] == source_name(second.url)
    left, used = body["worker"]["upstream"]["sources"]
    assert left["left_for_secs"] > 0
    assert "the upstream answered 400" in left["why"]
    assert used["in_use"]
    problem = f"the upstream at {source_name(first.url)} is left alone for a while"
    assert any(line.startswith(problem) for line in body["problems"])


def test_a_first_load_is_the_others_when_the_first_is_down(
    exchanges: list[SimulatorServer], worker: Worker
) -> None:
    exchanges[0].fail_with_status(400)
    assert worker.run_once()
    assert set(wiring.store().loaded()) == set(UNIVERSE.symbols)


def test_when_both_fail_the_cycle_has_failed(
    exchanges: list[SimulatorServer], worker: Worker
) -> None:
    for each in exchanges:
        each.fail_with_status(400)
    assert not worker.run_once()
    assert health()["worker"]["upstream"]["in_use"] is None


def test_what_a_door_serves_is_followed_and_as_old_as_it_says(
    exchanges: list[SimulatorServer], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges[0].fail_with_status(400)
    make_doors(monkeypatch, {exchanges[1].port: {DATA_AGE: "120", NODE_PATH: "ab12,cd34"}})
    assert worker.run_once()
    store = wiring.store()
    assert {each.authority for each in store.newest().values()} == {Authority.FOLLOWED}
    age = store.state().age
    assert age is not None
    assert 120 <= age < 180
    # Again, by the overlap of a later cycle.
    exchanges[1].set_bars({"VCB": {"volume": 10**9}})
    assert worker.run_once()
    newest = store.newest(["VCB"])["VCB"]
    assert (newest.volume, newest.authority) == (10**9, Authority.FOLLOWED)
    age = store.state().age
    assert age is not None
    assert 120 <= age < 180
    assert health()["worker"]["upstream"]["sources"][1]["second_hand"] is True


def test_a_door_that_leads_back_to_this_node_is_refused(
    exchanges: list[SimulatorServer], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = wiring.store().node_id()
    make_doors(monkeypatch, {exchanges[0].port: {DATA_AGE: "1", NODE_PATH: f"ab12,{own}"}})
    assert worker.run_once()
    left, used = health()["worker"]["upstream"]["sources"]
    assert "leads back to this node" in left["why"]
    assert used["in_use"]
    assert {each.authority for each in wiring.store().newest().values()} == {Authority.CORE}


def test_a_door_whose_bars_are_too_old_is_left(
    exchanges: list[SimulatorServer], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_doors(monkeypatch, {exchanges[0].port: {DATA_AGE: "301", NODE_PATH: "ab12"}})
    assert worker.run_once()
    left, _ = health()["worker"]["upstream"]["sources"]
    assert "its bars are 301 s old" in left["why"]


def test_each_learns_its_own_batch_size(exchanges: list[SimulatorServer], settings: Any) -> None:
    settings.VCI_BATCH_SIZE = 2
    worker = make_worker(threading.Event())
    exchanges[0].set_limits(max_symbols=1)
    assert worker.run_once()
    exchanges[0].fail_with_status(400)
    for _ in range(3):
        assert worker.run_once()
    sizes = [each["batch_size"] for each in health()["worker"]["upstream"]["sources"]]
    assert sizes == [1, 3]
