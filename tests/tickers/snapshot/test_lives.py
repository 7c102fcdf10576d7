"""When a process goes over from the market that it serves to another life of the store."""

import datetime as dt

import pytest
import redis

from tests.support.bars import FRIDAY, THURSDAY, WEDNESDAY, a_store, bar, lead, let_time_pass
from tickers.market_clock import is_trading_day
from tickers.snapshot import lives
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.store import Store
from tickers.verdict import Authority

SYMBOLS = [f"S{number:02}" for number in range(20)]
DAYS = [d for n in range(28) if is_trading_day(d := FRIDAY - dt.timedelta(days=27 - n))]
LONG_AGO = dt.date(2025, 7, 31)  # more than five trading days


class Bench:
    """A store that is emptied when told to, and the process that reads it."""

    def __init__(self, client: redis.Redis) -> None:
        self.store: Store = a_store(client)
        self.fence = lead(self.store)
        self.process = SnapshotRefresher(self.store)

    def fill(self, symbols: list[str], *, days: list[dt.date] = DAYS) -> None:
        bars = [bar(symbol, day) for symbol in symbols for day in days]
        self.store.merge(bars, Authority.CORE, fence=self.fence)

    def complete(self) -> None:
        self.store.complete_cycle(fence=self.fence)

    def forget(self) -> None:
        self.store.client.flushdb()
        self.fence = lead(self.store)

    def served(self) -> int:
        return len(self.process.current().series)

    def is_of_this_life(self) -> bool:
        served = self.process.current().position.epoch
        return served == self.store.state().position.epoch


@pytest.fixture
def bench(clean_server: redis.Redis) -> Bench:
    """It serves a complete market, and then the server is emptied."""
    made = Bench(clean_server)
    made.fill(SYMBOLS)
    made.complete()
    let_time_pass(clean_server, seconds=100)
    assert made.served() == len(SYMBOLS)
    made.forget()
    return made


def test_a_life_without_a_market_is_not_served_although_its_cycles_are_complete(
    bench: Bench,
) -> None:
    bench.complete()
    assert bench.served() == len(SYMBOLS)
    assert not bench.is_of_this_life()
    assert (bench.process.age() or 0) >= 100, "the age is that of what is served"
    assert "0 of 20 symbols" in " ".join(bench.process.complaints())


@pytest.mark.parametrize(("filled", "yields"), [(18, False), (19, True), (20, True)])
def test_a_complete_life_is_served_that_fills_nineteen_of_twenty(
    bench: Bench, filled: int, yields: bool
) -> None:
    bench.fill(SYMBOLS[:filled])
    assert not bench.is_of_this_life(), "it isn't complete"
    bench.complete()
    assert bench.is_of_this_life() is yields
    assert bool(bench.process.complaints()) is not yields
    assert ((bench.process.age() or 0) < 60) is yields


def test_symbols_that_have_not_traded_for_five_days_are_not_waited_for(
    clean_server: redis.Redis,
) -> None:
    bench = Bench(clean_server)
    bench.fill(SYMBOLS[:10])
    bench.fill(SYMBOLS[10:], days=[LONG_AGO])
    bench.complete()
    assert bench.served() == len(SYMBOLS)
    bench.forget()
    bench.fill(SYMBOLS[:10])
    bench.complete()
    assert bench.is_of_this_life()


def test_a_market_of_a_few_days_does_not_fill_one_of_many(bench: Bench) -> None:
    bench.fill(SYMBOLS, days=[WEDNESDAY, THURSDAY, FRIDAY])
    bench.complete()
    assert not bench.is_of_this_life()
    bench.fill(SYMBOLS)
    assert bench.is_of_this_life()


@pytest.mark.parametrize(("filled", "yields"), [(9, False), (10, True)])
def test_after_half_an_hour_half_of_the_market_is_served_and_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, filled: int, yields: bool
) -> None:
    bench.fill(SYMBOLS[:filled])
    assert not bench.is_of_this_life()
    monkeypatch.setattr(lives, "PATIENCE", 0.0)
    assert bench.is_of_this_life() is yields
    assert bench.process.complaints()
    bench.fill(SYMBOLS)
    bench.complete()
    assert bench.is_of_this_life()
    assert bench.served() == len(SYMBOLS)
    assert bench.process.complaints() == []


def test_a_market_that_was_never_complete_yields_at_once(clean_server: redis.Redis) -> None:
    bench = Bench(clean_server)
    bench.fill(SYMBOLS)
    assert bench.served() == len(SYMBOLS)
    bench.forget()
    bench.fill(SYMBOLS[:1])
    assert bench.is_of_this_life()


def test_a_market_that_became_complete_while_it_was_served_does_not(
    clean_server: redis.Redis,
) -> None:
    bench = Bench(clean_server)
    bench.fill(SYMBOLS)
    assert bench.served() == len(SYMBOLS)
    bench.complete()
    assert bench.served() == len(SYMBOLS)
    bench.forget()
    bench.fill(SYMBOLS[:1])
    assert not bench.is_of_this_life()
