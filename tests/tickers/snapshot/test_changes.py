"""What changed since a position: applied to the market of then, it gives the market of now."""

import datetime as dt
import json
import time
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.bars import FRIDAY, MONDAY, THURSDAY, a_store, bar, lead
from tickers.bar import Bar, epoch_of
from tickers.market_clock import is_trading_day
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.snapshot.snapshot import Selection, Snapshot
from tickers.store.records import Position
from tickers.store.store import Store
from tickers.verdict import Authority

CORE, FOLLOWED, INTERNAL = Authority.CORE, Authority.FOLLOWED, Authority.INTERNAL
SYMBOLS = ["VCB", "FPT"]
# More than have a revision of their own.
DAYS = [d for n in range(17) if is_trading_day(d := FRIDAY - dt.timedelta(days=n))]
TRUSTED = Selection(trusted=True)

Market = dict[str, dict[str, Any]]
Step = tuple[str, str, list[Bar]]

series = st.lists(
    st.builds(
        bar,
        st.just("VCB"),
        st.sampled_from(DAYS),
        close=st.sampled_from([64_300, 64_350]),
        volume=st.integers(1, 4),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one.day,
)
steps = st.tuples(
    st.sampled_from([CORE, CORE, FOLLOWED, INTERNAL, "replace", "forget"]),
    st.sampled_from(SYMBOLS),
    series,
)


def take(step: Step, store: Store, fence: str) -> None:
    """One step in the life of a market."""
    what, symbol, bars = step
    bars = [bar(symbol, one.day, close=one.close, volume=one.volume) for one in bars]
    if what == "forget":
        store.forget(symbol, fence=fence)
    elif what == "replace":
        whole = sorted(bars, key=lambda one: one.day)
        store.replace_series(
            symbol, whole, CORE, fence=fence, history_start=epoch_of(FRIDAY), replace_newest=True
        )
    else:
        store.merge(bars, Authority(what), fence=fence if what == CORE else "")


def market_of(snapshot: Snapshot) -> Market:
    body = json.loads(snapshot.body(None, TRUSTED))
    return {symbol: {one["time"]: one for one in bars} for symbol, bars in body.items()}


def applied(market: Market, told: dict[str, Any], now: Market) -> Market:
    """The market after what was told; ``now``: where a replaced series is read whole."""
    after = {symbol: dict(bars) for symbol, bars in market.items()}
    for one in told["bars"]:
        after.setdefault(one["symbol"], {})[one["time"]] = one
    for symbol in told["replaced"]:
        after[symbol] = now[symbol]
    for symbol in told["removed"]:
        after.pop(symbol, None)
    return after


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(life=st.lists(steps, min_size=1, max_size=10))
def test_what_changed_since_any_position_makes_its_market_the_present_one(
    store_client: redis.Redis, life: list[Step]
) -> None:
    """In a process that followed the log, in one that has just begun, and in one that holds no
    histories."""
    store_client.flushdb()
    store = a_store(store_client, log_length=10)
    fence = lead(store)
    keeper = SnapshotRefresher(store)
    seen: list[tuple[Position, Market]] = []
    for step in life:
        before = keeper.current()
        seen.append((before.position, market_of(before)))
        take(step, store, fence)
    followed, fresh = keeper.current(), SnapshotRefresher(store).current()
    small = SnapshotRefresher(store, memory_limit=0).current()
    now = market_of(fresh)
    for position, market in seen:
        answer = followed.changes(position.revision)
        assert answer == fresh.changes(position.revision) == small.changes(position.revision)
        told = json.loads(answer)
        assert told["position"] == str(followed.position)
        assert applied(market, told, now) == now
        assert not {one["symbol"] for one in told["bars"]} & set(told["replaced"])
        for symbol in SYMBOLS:
            of_symbol = json.loads(followed.changes(position.revision, [symbol]))
            assert of_symbol["bars"] == [b for b in told["bars"] if b["symbol"] == symbol]
    assert json.loads(followed.changes(followed.position.revision))["bars"] == []


@pytest.fixture
def keeper(store: Store) -> SnapshotRefresher:
    return SnapshotRefresher(store)


def changes(keeper: SnapshotRefresher, since: Position) -> dict[str, Any]:
    return dict(json.loads(keeper.current().changes(since.revision)))


def test_a_correction_before_the_last_ten_days_is_one_of_the_history(
    store: Store, keeper: SnapshotRefresher
) -> None:
    for day in reversed(DAYS[:-1]):
        store.merge([bar(day=day)], INTERNAL)
    before = keeper.current().position
    store.merge([bar(day=DAYS[-1])], INTERNAL)
    assert (changes(keeper, before)["bars"], changes(keeper, before)["replaced"]) == ([], ["VCB"])


def test_a_correction_within_the_last_ten_days_is_a_bar(
    store: Store, keeper: SnapshotRefresher, fence: str
) -> None:
    store.merge([bar(day=MONDAY), bar(day=FRIDAY)], INTERNAL)
    before = keeper.current().position
    store.merge([bar(day=THURSDAY)], INTERNAL)
    (told,) = changes(keeper, before)["bars"]
    assert told["time"].startswith("2025-08-14")


def test_a_symbol_that_left_and_came_back_is_read_whole(
    store: Store, keeper: SnapshotRefresher
) -> None:
    store.merge([bar(day=THURSDAY), bar(day=FRIDAY)], INTERNAL)
    before = keeper.current().position
    store.forget("VCB")
    gone = keeper.current().position
    assert changes(keeper, before)["removed"] == ["VCB"]
    store.merge([bar(volume=7)], INTERNAL)
    assert changes(keeper, before)["replaced"] == ["VCB"]
    assert changes(keeper, before)["removed"] == []
    assert [one["volume"] for one in changes(keeper, gone)["bars"]] == [7]


def test_the_newest_bars_of_the_market_take_two_milliseconds_at_most(
    store: Store, keeper: SnapshotRefresher, fence: str
) -> None:
    """Of processor time, at the best of ten: a bound of the promise, not a measurement."""
    symbols = [f"S{number:03}" for number in range(287)]
    store.merge([bar(symbol, day) for day in DAYS[:10] for symbol in symbols], CORE, fence=fence)
    before = keeper.current().position
    store.merge([bar(symbol, volume=2_000) for symbol in symbols], CORE, fence=fence)
    snapshot = keeper.current()

    def spent() -> float:
        began = time.thread_time()
        snapshot.changes(before.revision)
        return time.thread_time() - began

    assert len(json.loads(snapshot.changes(before.revision))["bars"]) == 287
    assert min(spent() for _ in range(10)) < 0.002
