"""What a core node's cycles make of answers that can't be right, and of days that never were.

The upstream is a table of series that the test writes; the store is the real server.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import redis

from tests.support.bars import (
    FRIDAY,
    MONDAY,
    THURSDAY,
    WEDNESDAY,
    a_store,
    bar,
    exchange_time,
    lead,
)
from tickers.bar import Bar
from tickers.core_fetch import CoreFetch
from tickers.cycle_report import CycleReport
from tickers.market_clock import Calendar, MarketClock
from tickers.snapshot.series import bar_of
from tickers.store.store import ROOT, Store
from tickers.suspects import Reason
from tickers.vci.answer import Answer
from tickers.vci.client import Failure, UpstreamCounters
from tickers.verdict import Authority, Verdict

START = dt.date(2025, 7, 1)
SUNDAY = dt.date(2025, 8, 10)
NATIONAL_DAY = dt.date(2025, 9, 2)
MINUTES = 60.0


class Upstream:
    """The client of an upstream whose series are what the test says."""

    def __init__(self, series: dict[str, list[Bar]]) -> None:
        self.series = series
        self.counters = UpstreamCounters()
        self.asked: list[tuple[str, ...]] = []  # for whole series
        self.absent: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()
        self.source, self.batch_size = "upstream", 50
        self.learned: dict[str, int] = {}

    def recall(self, learned: dict[str, int]) -> None:
        self.learned = learned

    def least_interval(self, symbols: Sequence[str]) -> float:
        return 0.0

    def fetch(
        self, symbols: Sequence[str], *, count_back: int, to: dt.datetime
    ) -> Iterator[Answer[Bar] | Failure]:
        if count_back > 30:
            self.asked.append(tuple(symbols))
        came = {s: self.series[s][-count_back:] for s in symbols if s in self.series}
        yield Answer(series=came, missing=frozenset(symbols) - came.keys())


class Node:
    """A core node whose store's clock goes on when told to."""

    def __init__(
        self, client: redis.Redis, symbols: Sequence[str], *, at: dt.datetime, calendar: Calendar
    ) -> None:
        self.store: Store = a_store(client)
        self.store.clock = MarketClock(frozen_at=at, calendar=calendar)
        self.fence = lead(self.store)
        self.upstream = Upstream({symbol: history(symbol) for symbol in symbols})
        self.fetch = CoreFetch(
            store=self.store,
            clock=self.store.clock,
            client=self.upstream,  # type: ignore[arg-type]  # what the fetch uses of a client
            symbols=symbols,
            history_start=START,
            stop=threading.Event(),
        )
        self.later = 0.0
        now = self.store.now
        self.store.now = lambda: now() + round(self.later * 1000)  # type: ignore[method-assign]

    def cycle(self, *, after: float = 0.0) -> CycleReport:
        self.later += after
        return self.fetch.cycle(self.fence)

    def served(self, symbol: str = "VCB") -> list[Bar]:
        [(_, rows)] = self.store.series([symbol])
        return [bar_of(encoded) for _, encoded in rows]

    def suspects(self) -> dict[str, Reason]:
        return {symbol: held.reason for symbol, held in self.store.suspects().items()}

    def say(self, symbol: str, bars: list[Bar]) -> None:
        self.upstream.series[symbol] = [replace(b, symbol=symbol) for b in bars]


def trading_days(until: dt.date = FRIDAY) -> list[dt.date]:
    days = [START + dt.timedelta(days=back) for back in range((until - START).days + 1)]
    return [day for day in days if Calendar().is_trading_day(day)]


def history(symbol: str, until: dt.date = FRIDAY) -> list[Bar]:
    """Closes that wander as closes do, and differently for each symbol."""
    seed, price, bars = sum(map(ord, symbol)), 20_000.0 + 137 * sum(map(ord, symbol)), []
    for at, day in enumerate(trading_days(until)):
        first, price = price, price * (1 + ((seed * (at + 3) * 7_919) % 61 - 30) / 1_500)
        high, low = max(first, price) + 100, min(first, price) - 100
        bars.append(Bar(symbol, day, first, high, low, price, 100_000 + at))
    return bars


def times(bars: Sequence[Bar], factor: float) -> list[Bar]:
    return [
        replace(
            b,
            open=b.open * factor,
            high=b.high * factor,
            low=b.low * factor,
            close=b.close * factor,
        )
        for b in bars
    ]


def swapped(bars: Sequence[Bar]) -> list[Bar]:
    return [replace(b, open=b.close, close=b.open) for b in bars]


SYMBOLS = [f"A{n:02}" for n in range(38)] + ["VCB", "FPT"]


@pytest.fixture
def a_node(clean_server: redis.Redis) -> Callable[..., Node]:
    def made(
        symbols: Sequence[str] = SYMBOLS,
        *,
        at: dt.datetime | None = None,
        calendar: Calendar | None = None,
    ) -> Node:
        moment = at or exchange_time(FRIDAY, 11)
        return Node(clean_server, symbols, at=moment, calendar=calendar or Calendar())

    return made


@pytest.fixture
def node(a_node: Callable[..., Node]) -> Node:
    made = a_node()
    assert made.cycle().errors == []
    return made


# --- Suspects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1000.0, 0.001])
@pytest.mark.parametrize("whole", [True, False])
def test_another_unit_is_never_served_by_itself(
    node: Node, caplog: pytest.LogCaptureFixture, factor: float, whole: bool
) -> None:
    good = node.served()
    wrong = times(good, factor) if whole else [*good[:-1], *times(good[-1:], factor)]
    node.say("VCB", wrong)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            cycle = node.cycle(after=11 * MINUTES)
            assert (cycle.errors, cycle.symbol_errors) == ([], {})
    assert node.served() == good
    assert node.suspects() == {"VCB": Reason.BEYOND}
    assert "VCB is a suspect" in caplog.text
    assert node.store.facts(["VCB"])["VCB"].is_suspect
    node.say("VCB", good)
    node.cycle(after=11 * MINUTES)
    assert node.suspects() == {}
    assert not node.store.facts(["VCB"])["VCB"].is_suspect


def test_a_first_load_in_which_todays_row_is_in_another_unit_serves_the_days_before(
    a_node: Callable[..., Node],
) -> None:
    node = a_node()
    good = history("VCB")
    node.say("VCB", [*good[:-1], *times(good[-1:], 1000)])
    for _ in range(2):
        node.cycle()
        assert node.served() == good[:-1]
        assert node.suspects() == {"VCB": Reason.BEYOND}
    node.say("VCB", good)
    node.cycle(after=11 * MINUTES)
    assert (node.served(), node.suspects()) == (good, {})


def test_two_swapped_series_and_swapped_prices_are_not_served(node: Node) -> None:
    good = {symbol: node.served(symbol) for symbol in ("VCB", "FPT", "A00")}
    node.say("VCB", good["FPT"])
    node.say("FPT", good["VCB"])
    node.say("A00", swapped(good["A00"]))
    node.cycle()
    assert {symbol: node.served(symbol) for symbol in good} == good
    assert node.suspects() == dict.fromkeys(good, Reason.UNSTEADY)
    for symbol, bars in good.items():
        node.say(symbol, bars)
    node.cycle(after=11 * MINUTES)
    assert node.suspects() == {}


def test_a_suspect_is_taken_when_two_equal_full_answers_ten_minutes_apart_say_the_same(
    node: Node,
) -> None:
    good, corrected = node.served(), swapped(node.served())
    node.say("VCB", corrected)
    node.cycle()
    node.upstream.asked.clear()
    node.cycle(after=9 * MINUTES)
    assert node.upstream.asked == [], "it is asked for again when its time has come"
    assert node.served() == good
    grown = replace(corrected[-1], volume=10**9)
    node.say("VCB", [*corrected[:-1], grown])
    node.cycle(after=1 * MINUTES)
    assert node.served() == [*corrected[:-1], grown]
    assert node.suspects() == {}


def test_more_than_a_tenth_of_the_market_is_not_adjusted_in_one_cycle(node: Node) -> None:
    moved, good = SYMBOLS[:11], {symbol: node.served(symbol) for symbol in SYMBOLS[:11]}
    for symbol in moved:
        node.say(symbol, [*times(good[symbol][:-1], 0.9), good[symbol][-1]])
    node.cycle()
    assert node.suspects() == dict.fromkeys(moved, Reason.MANY)
    assert {symbol: node.served(symbol) for symbol in moved} == good
    node.cycle(after=11 * MINUTES)
    assert node.suspects() == {}
    assert node.served(moved[0]) == node.upstream.series[moved[0]]


def test_ex_dates_a_bonus_issue_and_a_split_are_taken_at_once(node: Node) -> None:
    factors = {"A00": 0.5, "A01": 0.1, **{f"A{n:02}": 0.97 for n in range(2, 10)}}
    for symbol, factor in factors.items():
        node.say(symbol, times(node.served(symbol), factor))
    cycle = node.cycle()
    assert node.suspects() == {}
    assert cycle.series_replaced == len(factors)
    for symbol in factors:
        assert node.served(symbol) == node.upstream.series[symbol]


def test_a_history_that_alternates_settles(node: Node) -> None:
    good = node.served()
    adjusted = [*times(good[:-1], 0.9), good[-1]]
    seen = []
    for turn in range(6):
        node.say("VCB", adjusted if turn % 2 == 0 else good)
        node.cycle(after=5.0)
        seen.append(node.served() == adjusted)
    assert seen == [True] * 6
    assert node.suspects() == {"VCB": Reason.ALTERNATES}


def test_a_peers_lie_on_a_closed_day_makes_no_suspect_of_our_own_source(node: Node) -> None:
    lie = replace(node.served()[-3], close=99_000.0, high=99_000.0, open=99_000.0)
    node.store.client.lset(f"{ROOT}:bars:VCB", -2, lie.encode().decode())
    node.store.client.sadd(f"{ROOT}:foreign:VCB", lie.day.isoformat())
    node.cycle()
    assert node.suspects() == {}
    assert node.served() == node.upstream.series["VCB"]


def test_a_series_that_would_lose_days_costs_only_itself(node: Node) -> None:
    good = node.served()
    node.say("VCB", [*times(good[:3], 0.9), *times(good[-4:-1], 0.9), good[-1]])
    node.upstream.asked.clear()
    for _ in range(3):
        cycle = node.cycle()
        assert cycle.errors == []
    assert node.served() == good
    assert node.upstream.asked == [("VCB",)], "it isn't asked for in every cycle"


# --- Days -----------------------------------------------------------------------------------------


def sunday(symbol: str = "VCB", close: float = 64_300) -> Bar:
    return bar(symbol, SUNDAY, close=close)


@pytest.mark.parametrize("authority", [Authority.INTERNAL, Authority.FOLLOWED, Authority.CORE])
def test_a_bar_of_a_closed_day_is_refused_from_everybody(node: Node, authority: Authority) -> None:
    before = node.served()
    merged = node.store.merge([sunday(), bar(day=FRIDAY)], authority, fence=node.fence)
    assert merged.verdicts[0] is Verdict.CLOSED_DAY
    assert merged.verdicts[1] is not Verdict.CLOSED_DAY
    assert len(node.served()) == len(before)


def test_a_closed_day_alone_opens_no_trust_window(clean_server: redis.Redis) -> None:
    store = a_store(clean_server)
    assert store.merge([sunday()], Authority.INTERNAL).verdicts == [Verdict.CLOSED_DAY]
    assert store.state().age is None
    assert store.symbols() == []


def test_rows_of_a_closed_day_are_dropped_and_counted(node: Node) -> None:
    good = node.served()
    node.say("VCB", [*good[:-1], bar(day=dt.date(2025, 8, 9)), good[-1]])
    assert node.cycle().bars_dropped == 1
    assert node.served() == good
    assert node.store.state().trading_days == frozenset()


def test_a_day_that_half_of_the_market_traded_on_is_a_trading_day(
    a_node: Callable[..., Node],
) -> None:
    node = a_node(calendar=Calendar(extra_holidays=frozenset({THURSDAY})))
    node.cycle()
    assert THURSDAY in node.store.state().trading_days
    assert node.store.clock.calendar.is_trading_day(THURSDAY)
    node.cycle()
    assert node.served() == history("VCB")
    elsewhere = a_store(node.store.client)
    elsewhere.state()
    assert THURSDAY in elsewhere.clock.calendar.shown


@pytest.mark.parametrize("symbols", [SYMBOLS[:9], SYMBOLS])
def test_fewer_symbols_show_no_trading_day(
    a_node: Callable[..., Node], symbols: Sequence[str]
) -> None:
    node = a_node(symbols)
    for symbol in symbols[:19]:
        node.say(symbol, [*history(symbol)[:-6], sunday(symbol, 60_000), *history(symbol)[-5:]])
    node.cycle()
    assert node.store.state().trading_days == frozenset()
    assert SUNDAY not in {b.day for b in node.served(symbols[0])}


def test_a_stored_bar_of_a_closed_day_goes_also_as_the_newest(
    a_node: Callable[..., Node],
) -> None:
    monday_morning = dt.datetime(2025, 8, 11, 8, 0, tzinfo=exchange_time(MONDAY, 8).tzinfo)
    node = a_node(["VCB"], at=monday_morning)
    node.say("VCB", history("VCB", dt.date(2025, 8, 8)))
    node.cycle()
    lie = sunday(close=640_000)
    node.store.client.rpush(f"{ROOT}:bars:VCB", node.served()[-1].encode())
    text = f"{lie.epoch} INTERNAL {lie.volume} {lie.high} {lie.low} {lie.close} 0 1 "
    node.store.client.hset(f"{ROOT}:last", "VCB", text.encode() + lie.encode())
    assert node.served()[-1] == lie
    node.cycle()
    assert node.served() == node.upstream.series["VCB"]
    assert node.store.newest()["VCB"].authority is Authority.CORE


def test_twelve_bars_of_closed_days_block_no_dividend(node: Node) -> None:
    good = node.served()
    lies = [bar(day=START + dt.timedelta(days=n)) for n in range(40)]
    lies = [lie for lie in lies if not Calendar().is_trading_day(lie.day)][:12]
    everything = sorted([*good[:-1], *lies], key=lambda b: b.day)
    node.store.client.delete(f"{ROOT}:bars:VCB")
    node.store.client.rpush(f"{ROOT}:bars:VCB", *(b.encode() for b in everything))
    node.say("VCB", [*times(good[:-1], 0.97), good[-1]])
    assert node.cycle().symbol_errors == {}
    assert node.served() == node.upstream.series["VCB"]


def test_a_stored_day_that_three_answers_in_a_row_lack_goes(node: Node) -> None:
    good = node.served()
    lacking = [b for b in good if b.day != WEDNESDAY]
    node.say("VCB", lacking)
    for _ in range(2):
        node.cycle()
        assert node.served() == good
    node.say("VCB", good)
    node.cycle()
    node.say("VCB", lacking)
    for _ in range(2):
        node.cycle()
        assert node.served() == good, "not three in a row"
    node.cycle()
    assert node.served() == lacking


# --- The audit ------------------------------------------------------------------------------------


def at_minute(hour: int, minute: int = 0) -> dt.datetime:
    return exchange_time(FRIDAY, hour).replace(minute=minute)


def test_an_audit_finds_what_no_overlap_reaches_and_says_so(a_node: Callable[..., Node]) -> None:
    node = a_node(at=at_minute(15, 59))
    whole, small = history("VCB"), history("FPT")
    node.say("VCB", [*whole[:5], *whole[8:]])
    node.cycle()
    node.say("VCB", whole)
    node.say("FPT", [*times(small[:-1], 0.9992), small[-1]])
    node.cycle()
    assert node.served() != whole
    assert node.store.audit() == {}
    node.fetch._clock = node.fetch._audits._clock = MarketClock(frozen_at=at_minute(20))
    node.upstream.asked.clear()
    node.cycle()
    assert node.served() == whole
    assert node.served("FPT") == node.upstream.series["FPT"]
    told = node.store.audit()
    assert (told["day"], told["symbols_read"]) == ("2025-08-15", len(SYMBOLS))
    assert told["changed"] == ["FPT", "VCB"]
    node.cycle()
    assert len(node.upstream.asked) == 1, "once a day"


@pytest.mark.parametrize("day", [FRIDAY + dt.timedelta(days=1), NATIONAL_DAY])
def test_no_audit_is_due_on_a_closed_day(a_node: Callable[..., Node], day: dt.date) -> None:
    node = a_node(at=exchange_time(day, 21))
    assert not node.fetch._audits.is_due()


# --- One symbol costs only itself -----------------------------------------------------------------


def test_a_symbol_that_leaves_the_universe_leaves_the_market(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.store.merge([bar("GOSSIP")], Authority.INTERNAL)
    fewer = CoreFetch(
        store=node.store,
        clock=node.store.clock,
        client=node.upstream,  # type: ignore[arg-type]  # as above
        symbols=SYMBOLS[1:],
        history_start=START,
        stop=threading.Event(),
    )
    with caplog.at_level(logging.WARNING):
        fewer.cycle(node.fence)
    assert set(node.store.symbols()) == {*SYMBOLS[1:], "GOSSIP"}
    assert f"{SYMBOLS[0]} isn't in the universe" in caplog.text


def test_an_operator_takes_what_is_suspect_and_what_loses_days(node: Node) -> None:
    wrong, short = times(node.served("VCB"), 20), node.served("FPT")[-10:]
    node.say("VCB", wrong)
    node.say("FPT", [*node.served("FPT")[:1], *short])
    node.cycle()
    assert node.suspects() == {"VCB": Reason.BEYOND}
    node.fetch.read_in_full(node.fence, ["VCB", "FPT"], accept=True)
    assert node.suspects() == {}
    assert node.served("VCB") == wrong
    assert node.served("FPT") == node.upstream.series["FPT"]
    node.cycle()
    assert node.served("VCB") == wrong


# --- Readiness ------------------------------------------------------------------------------------


def is_ready(node: Node) -> bool:
    state = node.store.state()
    return state.ready_epoch == state.position.epoch


@pytest.mark.parametrize("day", [FRIDAY, dt.date(2025, 8, 17)])
def test_a_market_of_four_with_one_delisted_is_complete(
    a_node: Callable[..., Node], day: dt.date
) -> None:
    node = a_node(["VCB", "FPT", "ACB", "GONE"], at=exchange_time(day, 11))
    del node.upstream.series["GONE"]
    node.cycle()
    assert is_ready(node)
    node.store.client.flushdb()
    node.fence = lead(node.store)
    assert not is_ready(node)
    node.cycle()
    assert is_ready(node)


def test_a_cycle_that_brings_nothing_completes_no_market(a_node: Callable[..., Node]) -> None:
    node = a_node()
    node.upstream.series.clear()
    node.cycle()
    assert not is_ready(node)


def test_a_refused_history_keeps_no_market_from_being_complete(
    a_node: Callable[..., Node],
) -> None:
    node = a_node()
    node.store.merge([bar("VCB", b.day) for b in history("VCB")], Authority.CORE, fence=node.fence)
    node.say("VCB", [*history("VCB")[:1], *history("VCB")[-10:]])
    cycle = node.cycle()
    assert set(cycle.symbol_errors) == {"VCB"}
    assert cycle.errors == []
    assert is_ready(node)


def test_a_symbol_that_no_answer_has_for_a_quarter_of_an_hour_is_unseen(node: Node) -> None:
    del node.upstream.series["VCB"]
    assert node.cycle(after=14 * MINUTES).unseen == {}
    assert set(node.cycle(after=2 * MINUTES).unseen) == {"VCB"}, "the others were unchanged"
    node.upstream.series.clear()
    assert node.cycle(after=2 * MINUTES).unseen == {}, "nobody moves"


def test_nothing_is_unseen_while_the_market_is_closed(a_node: Callable[..., Node]) -> None:
    node = a_node(at=exchange_time(FRIDAY, 8))
    node.cycle()
    del node.upstream.series["VCB"]
    assert node.cycle(after=60 * MINUTES).unseen == {}
