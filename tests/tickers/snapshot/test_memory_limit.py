"""A market larger than the limit is the same market."""

import datetime as dt
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.bars import (
    FRIDAY,
    MONDAY,
    NEXT_MONDAY,
    THURSDAY,
    OwnServer,
    a_store,
    bar,
    clock_at,
    exchange_time,
    lead,
)
from tests.tickers.snapshot.test_snapshot import DAYS, lay, selections
from tickers.bar import Bar, epoch_of
from tickers.snapshot import gzip_pieces, zstd_pieces
from tickers.snapshot.memory_limit import SYMBOL_SIZE
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.snapshot.snapshot import EVERYTHING, LAST, PART, Selection, Snapshot, StaleError
from tickers.store.store import Store
from tickers.verdict import Authority

INTERNAL = Authority.INTERNAL
SYMBOLS = [f"S{number:02}" for number in range(2 * PART + 3)]
LEAST = len(SYMBOLS) * SYMBOL_SIZE
HISTORY = 4 * len(bar("S00").encode() + b",") + 4 * 9  # bytes, of four bars and their places
SOME = LEAST + 5 * HISTORY
# No history; some; all, but no kept body; all.
LIMITS = [0, SOME, LEAST + 30 * HISTORY, LEAST + 90 * HISTORY]


@pytest.fixture
def market(store: Store) -> Store:
    """A week of more symbols than two parts have; some with overlays, two with other days."""
    store.merge([bar(symbol, day) for symbol in SYMBOLS[:-2] for day in DAYS], INTERNAL)
    store.merge([bar(SYMBOLS[-2], day) for day in DAYS[:3]], INTERNAL)
    store.merge([bar(SYMBOLS[-1], THURSDAY)], INTERNAL)
    for symbol in (SYMBOLS[0], SYMBOLS[12], SYMBOLS[-2], SYMBOLS[-1]):
        lay(store, bar(symbol, volume=9_000))
    return store


def limited(store: Store, limit: int = SOME) -> SnapshotRefresher:
    return SnapshotRefresher(store, memory_limit=limit)


def body_in_parts(snapshot: Snapshot, symbols: Iterable[str] | None, selection: Selection) -> bytes:
    return b"".join(snapshot.parts(symbols, selection))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    symbols=st.none() | st.lists(st.sampled_from([*SYMBOLS, "NONE"])),
    selection=selections,
    limit=st.sampled_from(LIMITS),
)
def test_its_bodies_are_byte_for_byte_those_without_a_limit(
    market: Store, symbols: list[str] | None, selection: Selection, limit: int
) -> None:
    expected = SnapshotRefresher(market).current().body(symbols, selection)
    snapshot = limited(market, limit).current()
    assert snapshot.body(symbols, selection) == expected
    assert body_in_parts(snapshot, symbols, selection) == expected


@pytest.mark.parametrize(
    ("limit", "held"), [(LIMITS[0], 0), (LIMITS[1], 5), (LIMITS[2], 23), (LIMITS[3], 23)]
)
def test_as_many_histories_are_held_as_fit(market: Store, limit: int, held: int) -> None:
    refresher = limited(market, limit)
    assert refresher.memory().held == 0
    refresher.current()
    memory = refresher.memory()
    # The last ones are short, and fit where others don't.
    assert held <= memory.held <= held + 2
    assert memory.held + memory.not_held == len(SYMBOLS)


@pytest.mark.parametrize("limit", [LEAST, *LIMITS[1:]])
def test_what_is_held_stays_below_the_limit_whatever_is_asked(market: Store, limit: int) -> None:
    refresher = limited(market, limit)
    for volume in range(3):
        snapshot = refresher.current()
        for selection in (EVERYTHING, LAST, Selection(limit=3), Selection(trusted=True)):
            snapshot.body(None, selection)
            for coding in (gzip_pieces, zstd_pieces):
                snapshot.packed(None, selection, coding)
        assert refresher.memory().used <= limit
        market.merge([bar("S05", volume=volume)], INTERNAL)


def test_bodies_are_kept_where_they_fit_only(market: Store) -> None:
    market.complete_cycle(fence=lead(market), ends_overlays=True)
    without, with_bodies = (limited(market, limit).current() for limit in LIMITS[2:])
    assert without.answers_in_parts(None, EVERYTHING)
    assert without.packed(None, EVERYTHING, gzip_pieces) is None
    assert not with_bodies.answers_in_parts(None, EVERYTHING)
    assert with_bodies.packed(None, EVERYTHING, gzip_pieces)


@pytest.mark.parametrize("limit", LIMITS)
def test_the_last_bars_are_always_held(
    market: Store, store_client: redis.Redis, limit: int
) -> None:
    snapshot = limited(market, limit).current()
    expected = {symbol: [] for symbol in SYMBOLS} | json.loads(snapshot.body(None, LAST))
    store_client.flushdb()
    assert not snapshot.answers_in_parts(None, LAST)
    assert all(len(bars) == 1 for bars in expected.values())
    assert json.loads(snapshot.body(SYMBOLS, LAST)) == expected
    assert snapshot.packed(None, LAST, gzip_pieces)
    today = Selection(start=epoch_of(FRIDAY), trusted=True)
    assert len(json.loads(snapshot.body(SYMBOLS[:4], today))) == 4


# --- As the market moves --------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.lists(
            st.builds(
                bar,
                st.sampled_from([*SYMBOLS[:3], "NEW", "NEWER"]),
                st.sampled_from(DAYS),
                volume=st.integers(1_001, 2_000),
            ),
            min_size=1,
            max_size=6,
        ),
        min_size=1,
        max_size=4,
    ),
    limit=st.sampled_from([2_500, 4_000, 5_500, 7_000, 20_000]),
)
def test_a_refresher_that_follows_the_log_keeps_to_it_too(
    store_client: redis.Redis, steps: list[list[Bar]], limit: int
) -> None:
    store_client.flushdb()
    store = a_store(store_client)
    store.merge([bar(symbol, day) for symbol in SYMBOLS[:2] for day in DAYS[:3]], INTERNAL)
    refresher = limited(store, limit)
    refresher.current()
    for changed in steps:
        store.merge(changed, INTERNAL)
        snapshot, fresh = refresher.current(), SnapshotRefresher(store).current()
        for selection in (EVERYTHING, LAST, Selection(limit=2)):
            assert snapshot.body(None, selection) == fresh.body(None, selection)
        memory = refresher.memory()
        held = [s.history.size for s in snapshot.series.values() if s.history is not None]
        assert sum(held) == snapshot.room.taken
        assert memory.not_held == snapshot.room.not_held
        assert not held or snapshot.room.symbols * SYMBOL_SIZE + sum(held) <= limit


def test_reaching_it_is_said_once(market: Store, caplog: pytest.LogCaptureFixture) -> None:
    refresher = limited(market)
    with caplog.at_level(logging.WARNING):
        refresher.current()
        market.merge([bar("S05", volume=5_000)], INTERNAL)
        refresher.current()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "memory limit" in said
    assert "of 23 symbols" in said
    assert "SNAPSHOT_MEMORY" in said


def test_a_market_that_fits_says_nothing(market: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        SnapshotRefresher(market).current()
    assert caplog.records == []


# --- What is read from the store ------------------------------------------------------------------


def test_bars_that_came_later_than_the_snapshot_do_not_show(market: Store) -> None:
    """The snapshot's name is of its newest bars; what is read beside them belongs before them."""
    snapshot = limited(market, 0).current()
    expected = {
        selection: snapshot.body(["S05"], selection)
        for selection in (EVERYTHING, Selection(limit=2), Selection(limit=4))
    }
    next_days = [NEXT_MONDAY, NEXT_MONDAY + dt.timedelta(days=1)]
    market.clock = clock_at(exchange_time(next_days[-1], 10))
    market.merge([bar("S05", day, volume=7_000) for day in (FRIDAY, *next_days)], INTERNAL)
    for selection, body in expected.items():
        assert snapshot.body(["S05"], selection) == body
    assert snapshot.volumes(["S05"], 3) == {"S05": [1_000] * 3}


def test_as_much_is_read_as_is_asked_for(market: Store, store_client: redis.Redis) -> None:
    asked: list[tuple[Any, int]] = []

    class Watched(Store):
        def series(self, symbols: Any, *, last: int = 0) -> Any:
            asked.append((symbols, last))
            return super().series(symbols, last=last)

    store = Watched(store_client, clock=market.clock, trust_window=300)
    snapshot = limited(store, 0).current()
    asked.clear()
    snapshot.body(["S05"], Selection(limit=3))
    snapshot.body(["S05"], LAST)
    snapshot.body(["S05", "S06"], Selection(end=epoch_of(MONDAY), limit=1))
    assert asked == [(["S05"], 4), (["S05", "S06"], 0)]


def test_volumes_are_the_same_with_a_limit(market: Store) -> None:
    for last in (1, 3, 60):
        assert limited(market, 0).current().volumes(SYMBOLS, last) == SnapshotRefresher(
            market
        ).current().volumes(SYMBOLS, last)


class TestTheStoreAway:
    def test_what_is_not_held_cannot_be_had(self, own_server: OwnServer) -> None:
        store = a_store(own_server.client)
        store.merge([bar("A", day) for day in DAYS], INTERNAL)
        refresher = limited(store, 0)
        refresher.current()
        own_server.stop()
        snapshot = refresher.current()
        with pytest.raises(redis.RedisError):
            snapshot.body(["A"], EVERYTHING)
        assert len(json.loads(snapshot.body(None, LAST))["A"]) == 1

    def test_another_life_is_not_taken_for_this_one(self, own_server: OwnServer) -> None:
        """It came back empty: its histories under the old name would be a lie."""
        store = a_store(own_server.client)
        store.merge([bar("A", day) for day in DAYS], INTERNAL)
        store.complete_cycle(fence=lead(store))
        refresher = limited(store, 0)
        refresher.current()
        own_server.forget()
        own_server.stop()
        own_server.start()
        store.merge([bar("A", MONDAY)], INTERNAL)
        with pytest.raises(StaleError, match="another life"):
            refresher.current().body(["A"], EVERYTHING)
        store.complete_cycle(fence=lead(store))
        assert len(json.loads(refresher.current().body(["A"], EVERYTHING))["A"]) == 1

    def test_a_part_read_after_a_restart_is_refused_too(self, own_server: OwnServer) -> None:
        store = a_store(own_server.client)
        store.merge([bar(symbol, day) for symbol in SYMBOLS for day in DAYS], INTERNAL)
        parts = limited(store, 0).current().parts(None, EVERYTHING)
        next(parts)
        own_server.stop()
        own_server.start()
        with pytest.raises(StaleError):
            next(parts)
