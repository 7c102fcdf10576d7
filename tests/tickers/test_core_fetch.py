"""The core cycle: the real client against the simulated exchange, into a real store."""

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from django.conf import settings

from simulator.clock import AcceleratedClock
from simulator.faults import BodyFault
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.bars import let_time_pass, wait_until
from tickers.bar import Bar
from tickers.core_fetch import ADJUSTED, CoreFetch, compare
from tickers.market_clock import MarketClock
from tickers.snapshot.series import bar_of
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, FencedError, Store
from tickers.universe import Universe
from tickers.vci.client import Failure, VciClient
from tickers.vci.request_budget import RequestBudget
from tickers.verdict import Authority

ICT = dt.timezone(dt.timedelta(hours=7))
FRIDAY_11 = dt.datetime(2025, 8, 15, 11, 0, tzinfo=ICT)
HISTORY_START = dt.date(2025, 7, 1)
SYMBOLS = ["VNINDEX", "VCB", "FPT", "ACV", "SHS"]


@dataclass
class Bench:
    exchange: SimulatorServer
    store: Store
    fetch: CoreFetch
    client: VciClient
    fence: str
    changes: list[int]
    on_change: Callable[[], None] = lambda: None

    def series(self, symbol: str) -> list[Bar]:
        [(_, rows)] = self.store.series([symbol])
        return [bar_of(encoded) for _, encoded in rows]

    def at_the_exchange(self, symbol: str) -> list[Bar]:
        answer = self.client.history([symbol], interval="1D", count_back=400, to=FRIDAY_11)
        return [bar for bar in answer.series[symbol] if bar.day >= HISTORY_START]


@pytest.fixture
def bench(clean_server: redis.Redis) -> Iterator[Bench]:
    clock = MarketClock(frozen_at=FRIDAY_11)
    store = Store(connect(settings.REDIS_URL, timeout=5), clock=clock, trust_window=300)
    market = SimulatedMarket(
        Universe.read(), clock=AcceleratedClock(FRIDAY_11, 0), seed=3, history_start=HISTORY_START
    )
    stop = threading.Event()
    changes: list[int] = []

    def changed() -> None:
        changes.append(1)
        found.on_change()

    with SimulatorServer(market) as exchange:
        client = VciClient(
            base_url=exchange.url,
            budget=RequestBudget(limit=6_000, server=store.client, key_prefix=f"{ROOT}:"),
            batch_size=3,
            stop=stop,
            backoff=0,
            max_attempts=2,
        )
        fetch = CoreFetch(
            store=store,
            clock=clock,
            client=client,
            symbols=SYMBOLS,
            history_start=HISTORY_START,
            stop=stop,
            on_change=changed,
        )
        fence = store.acquire_lease(60)
        assert fence
        found = Bench(exchange, store, fetch, client, fence, changes)
        yield found
        client.close()


def test_the_first_cycle_loads_every_history_whole(bench: Bench) -> None:
    cycle = bench.fetch.cycle(bench.fence)
    assert cycle.errors == []
    assert cycle.requests == 2
    assert cycle.series_replaced == len(SYMBOLS)
    for symbol in SYMBOLS:
        assert bench.series(symbol) == bench.at_the_exchange(symbol)
    assert set(bench.store.loaded()) == set(SYMBOLS)
    assert bench.store.state().ready_epoch == bench.store.state().position.epoch


@pytest.mark.parametrize("status", [404, 405])
def test_an_address_that_isnt_the_chart_apis_is_named_with_symbols_and_the_setting(
    bench: Bench, status: int
) -> None:
    bench.exchange.fail_with_status(status)
    cycle = bench.fetch.cycle(bench.fence)
    told = [*cycle.errors, *cycle.symbol_errors.values()]
    assert told
    address = f"{bench.exchange.url.rstrip('/')}/chart/OHLCChart/gap-chart"
    for line in told:
        assert f"the upstream answered {status} ({address}); is VCI_BASE_URL right?" in line
    assert any(symbol in line for line in cycle.errors for symbol in SYMBOLS)


def test_later_cycles_ask_only_for_an_overlap_and_change_nothing_by_themselves(
    bench: Bench,
) -> None:
    bench.fetch.cycle(bench.fence)
    before = bench.store.state().position
    cycle = bench.fetch.cycle(bench.fence)
    assert cycle.bars_received <= 4 * len(SYMBOLS)
    assert cycle.bars_changed == 0
    assert bench.store.state().position == before


def test_the_next_answer_is_asked_for_while_one_is_merged(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    newest = bench.series("VNINDEX")[-1]
    bench.exchange.set_bars({"VNINDEX": {"volume": newest.volume + 500}})
    before = int(bench.exchange.stats()["requests"])

    def both_were_asked() -> bool:
        return bench.exchange.stats()["requests"] == before + 2

    bench.on_change = lambda: wait_until(both_were_asked)
    assert bench.fetch.cycle(bench.fence).bars_changed == 1


def test_an_intraday_update_is_taken(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    newest = bench.series("VCB")[-1]
    bench.changes.clear()
    bench.exchange.set_bars({"VCB": {"close": newest.high, "volume": newest.volume + 500}})
    cycle = bench.fetch.cycle(bench.fence)
    assert cycle.bars_changed == 1
    assert bench.changes == [1]
    assert bench.series("VCB")[-1].volume == newest.volume + 500
    assert bench.series("VCB")[-1].close == newest.high


def test_an_adjusted_history_is_replaced_whole_in_one_cycle(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    before, position = bench.series("VCB"), bench.store.state().position
    bench.exchange.adjust({"VCB": 0.9})
    cycle = bench.fetch.cycle(bench.fence)
    assert cycle.series_replaced == 1
    after = bench.series("VCB")
    assert after == bench.at_the_exchange("VCB")
    assert after[0].close < before[0].close * 0.95
    changes = bench.store.changes_since(position)[1] or []
    assert [(change.what, change.symbol) for change in changes] == [("replaced", "VCB")]


def test_a_series_that_the_overlap_doesnt_reach_is_read_whole(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    whole = bench.series("FPT")
    bench.store.client.ltrim(f"{ROOT}:bars:FPT", 0, -11)
    old = whole[-11]
    bench.store.client.hset(
        f"{ROOT}:last",
        "FPT",
        f"{old.epoch} CORE {old.volume} {old.high} {old.low} {old.close} 0 1 ".encode()
        + old.encode(),
    )
    bench.fetch.cycle(bench.fence)
    assert bench.series("FPT") == whole


def test_a_failed_batch_leaves_the_others_and_the_market_is_not_called_complete(
    bench: Bench,
) -> None:
    bench.exchange.fail_with_body(BodyFault.HTML, times=1)
    cycle = bench.fetch.cycle(bench.fence)
    assert len(cycle.errors) == 1
    assert "HTML" in cycle.errors[0]
    assert 0 < len(bench.store.symbols()) < len(SYMBOLS)
    assert bench.store.state().ready_epoch == ""
    assert bench.fetch.cycle(bench.fence).errors == []
    assert set(bench.store.symbols()) == set(SYMBOLS)


@pytest.mark.parametrize(
    ("fault", "came"),
    [
        (BodyFault.MISMATCH, "column c has"),
        (BodyFault.MISSING_KEY, "column v is missing"),
        (BodyFault.EMPTY_COLUMNS, "its columns are empty"),
    ],
)
def test_a_symbol_that_comes_without_a_usable_bar_costs_only_itself(
    bench: Bench, fault: BodyFault, came: str
) -> None:
    bench.fetch.cycle(bench.fence)
    before, completed = bench.series("VNINDEX"), bench.store.seconds_since_cycle()
    bench.store.client.delete(f"{ROOT}:cycle_at")
    newest = bench.series("VCB")[-1]
    bench.exchange.set_bars({"VCB": {"close": newest.high, "volume": newest.volume + 500}})
    bench.exchange.fail_with_body(fault, times=1)
    cycle = bench.fetch.cycle(bench.fence)
    assert completed is not None
    assert list(cycle.symbol_errors) == ["VNINDEX"]
    assert came in cycle.symbol_errors["VNINDEX"]
    assert (cycle.errors, cycle.brought_nothing) == ([], False)
    assert bench.series("VNINDEX") == before
    assert bench.series("VCB")[-1].volume == newest.volume + 500
    assert bench.store.seconds_since_cycle() is not None


def test_empty_columns_of_a_symbol_that_has_no_bar_are_no_error(bench: Bench) -> None:
    bench.exchange.fail_with_body(BodyFault.EMPTY_COLUMNS, times=1)
    cycle = bench.fetch.cycle(bench.fence)
    assert (cycle.missing, cycle.symbol_errors, cycle.errors) == ({"VNINDEX"}, {}, [])
    assert cycle.symbols_missing == 1
    assert bench.store.state().ready_epoch != ""


@pytest.mark.parametrize(
    ("fault", "came"),
    [
        (BodyFault.TEXTS, "open is not a number"),
        (BodyFault.MILLISECONDS, "time must be epoch seconds"),
        (BodyFault.NULLS, "open is null"),
        (BodyFault.EMPTY, "none of the symbols asked for"),
    ],
)
@pytest.mark.parametrize("first_load", [True, False])
def test_a_cycle_without_a_usable_bar_has_failed_and_says_what_came(
    bench: Bench, fault: BodyFault, came: str, first_load: bool
) -> None:
    if not first_load:
        bench.fetch.cycle(bench.fence)
    market = {symbol: bench.series(symbol) for symbol in SYMBOLS}
    bench.store.client.delete(f"{ROOT}:cycle_at")
    bench.exchange.fail_with_body(fault)
    cycle = bench.fetch.cycle(bench.fence)
    assert cycle.brought_nothing
    assert came in cycle.errors[0]
    assert {symbol: bench.series(symbol) for symbol in SYMBOLS} == market
    assert bench.store.seconds_since_cycle() is None


def test_symbols_that_the_exchange_leaves_out_are_named(bench: Bench) -> None:
    bench.exchange.drop(["ACV"])
    cycle = bench.fetch.cycle(bench.fence)
    assert (cycle.missing, cycle.errors) == ({"ACV"}, [])
    assert bench.store.state().ready_epoch != ""


def test_what_was_learned_of_the_batch_size_outlives_the_worker(bench: Bench) -> None:
    """With another lease comes another worker, which has learned nothing yet."""
    bench.exchange.set_limits(max_symbols=2)
    bench.fetch.cycle(bench.fence)
    assert bench.client.batch_size == 2
    assert bench.store.batch_size(bench.client.source) == {"size": 2, "holds": 1}
    bench.store.release_lease(bench.fence)
    fence = bench.store.acquire_lease(60)
    assert fence
    client = VciClient(
        base_url=bench.exchange.url,
        budget=RequestBudget(limit=6_000, server=bench.store.client),
        batch_size=3,
        stop=threading.Event(),
    )
    fetch = CoreFetch(
        store=bench.store,
        clock=bench.store.clock,
        client=client,
        symbols=SYMBOLS,
        history_start=HISTORY_START,
        stop=threading.Event(),
    )
    assert fetch.cycle(fence).requests == 3
    client.close()


def test_a_cycle_says_what_the_budget_allows(bench: Bench) -> None:
    assert bench.fetch.cycle(bench.fence).least_interval == pytest.approx(2 * 61 / 6_000, rel=0.01)


def test_a_fetch_under_a_lost_lease_writes_nothing(bench: Bench) -> None:
    bench.store.release_lease(bench.fence)
    assert bench.store.acquire_lease(60)
    with pytest.raises(FencedError):
        bench.fetch.cycle(bench.fence)
    assert bench.store.symbols() == []


def test_a_contact_is_one_request_that_refreshes_the_trust_window(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    bench.store.client.set(f"{ROOT}:trusted_at", 1)
    cycle = bench.fetch.contact(bench.fence)
    assert cycle.requests == 1
    age = bench.store.state().age
    assert age is not None
    assert age < 60


def test_a_contact_doesnt_depend_on_one_symbol(bench: Bench) -> None:
    bench.fetch.cycle(bench.fence)
    bench.exchange.fail_with_body(BodyFault.EMPTY_COLUMNS)
    bench.fetch.cycle(bench.fence)
    bench.store.client.set(f"{ROOT}:trusted_at", 1)
    contact = bench.fetch.contact(bench.fence)
    assert (contact.errors, contact.requests) == ([], 1)
    age = bench.store.state().age
    assert age is not None
    assert age < 60


def test_a_peers_bar_of_today_goes_when_a_whole_answer_has_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fetch.cycle(bench.fence)
    whole = bench.series("VCB")
    without_todays(bench, "VCB", monkeypatch)
    bench.store.forget("VCB")
    bench.fetch.cycle(bench.fence)
    lie = dataclasses.replace(whole[-1], volume=whole[-1].volume + 1)
    bench.store.merge([lie], Authority.INTERNAL, peer="198.51.100.7")
    bench.fetch.cycle(bench.fence)
    assert bench.series("VCB") == [*whole[:-1], lie]
    let_time_pass(bench.store.client, seconds=61)
    bench.fetch.cycle(bench.fence)
    bench.store.state()
    assert bench.series("VCB") == whole[:-1]
    assert bench.store.counted_against() == {"198.51.100.7": {"contradicted": 1}}


def test_a_peers_bar_of_today_stays_when_few_have_theirs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before the first trades of a day."""
    bench.fetch.cycle(bench.fence)
    whole = bench.series("VCB")
    for symbol in SYMBOLS[1:4]:
        without_todays(bench, symbol, monkeypatch)
        bench.store.forget(symbol)
    bench.fetch.cycle(bench.fence)
    bench.store.merge([whole[-1]], Authority.INTERNAL)
    bench.fetch.cycle(bench.fence)
    let_time_pass(bench.store.client, seconds=61)
    bench.store.state()
    assert bench.series("VCB") == whole


def without_todays(bench: Bench, symbol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the upstream's answers have no bar of today of the symbol."""
    fetch = bench.client.fetch

    def answers(*args: Any, **options: Any) -> Iterator[Any]:
        for answer in fetch(*args, **options):
            if not isinstance(answer, Failure) and symbol in answer.series:
                answer.series[symbol] = answer.series[symbol][:-1]
            yield answer

    monkeypatch.setattr(bench.client, "fetch", answers)


def test_a_gossiped_bar_is_never_taken_for_a_history(bench: Bench) -> None:
    bar = Bar("VCB", dt.date(2025, 8, 15), 60_000, 61_000, 59_000, 60_500, 100)
    bench.store.merge([bar], Authority.INTERNAL)
    bench.fetch.cycle(bench.fence)
    assert len(bench.series("VCB")) == len(bench.at_the_exchange("VCB"))


# --- What an overlap tells ------------------------------------------------------------------------


def bar(day: int, close: float, volume: int = 100) -> Bar:
    return Bar("VCB", dt.date(2025, 8, day), close, close, close, close, volume)


STORED = [
    (stored.epoch, stored.encode())
    for stored in (bar(11, 100), bar(12, 101), bar(13, 102), bar(14, 103))
]


def test_of_the_same_overlap_with_a_grown_last_day_that_day_is_merged() -> None:
    bars = [bar(12, 101), bar(13, 102), bar(14, 103.5, 200)]
    assert compare(bars, STORED) == (False, [bar(14, 103.5, 200)])


def test_the_newest_stored_day_is_merged_unchanged_too() -> None:
    """It ends overlays, and confirms what a peer sent."""
    bars = [bar(13, 102), bar(14, 103)]
    assert compare(bars, STORED) == (False, [bar(14, 103)])


def test_a_closed_day_that_is_not_stored_is_merged() -> None:
    bars = [bar(10, 99), bar(11, 100), bar(14, 103)]
    assert compare(bars, STORED) == (False, [bar(10, 99), bar(14, 103)])


def test_the_final_bar_of_the_newest_stored_day_is_no_adjustment() -> None:
    bars = [bar(12, 101), bar(13, 102), bar(14, 110), bar(15, 111)]
    assert compare(bars, STORED) == (False, [bar(14, 110), bar(15, 111)])


def test_an_older_closed_day_that_differs_is_an_adjustment() -> None:
    bars = [bar(12, 101 * 0.9), bar(13, 102 * 0.9), bar(14, 103 * 0.9), bar(15, 95)]
    assert compare(bars, STORED) == (True, [bar(15, 95)])


def test_rounding_is_no_adjustment() -> None:
    rounded = bar(12, 101 * (1 + ADJUSTED / 2))
    bars = [rounded, bar(13, 102), bar(14, 103)]
    assert compare(bars, STORED) == (False, [rounded, bar(14, 103)])


def test_an_overlap_that_begins_after_the_newest_stored_day_leaves_a_gap() -> None:
    assert compare([bar(18, 104), bar(19, 105)], STORED) == (True, [bar(18, 104), bar(19, 105)])


def test_an_empty_answer_says_nothing() -> None:
    assert compare([], STORED) == (False, [])
