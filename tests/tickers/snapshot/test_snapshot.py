"""The snapshot: always the store's market, read at the cost of what changed."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.bars import (
    FRIDAY,
    MONDAY,
    NEXT_MONDAY,
    THURSDAY,
    TRUST_WINDOW,
    TUESDAY,
    WEDNESDAY,
    OwnServer,
    a_store,
    bar,
    clock_at,
    exchange_time,
    lead,
    let_time_pass,
)
from tickers.bar import Bar, epoch_of
from tickers.snapshot.refresh import SnapshotRefresher, load
from tickers.snapshot.series import History, bar_of, close_of, volume_of
from tickers.snapshot.snapshot import Selection, Snapshot, StaleError
from tickers.store.records import Change, Position, State, day_in
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

CORE, INTERNAL = Authority.CORE, Authority.INTERNAL
SYMBOLS = ["VCB", "FPT", "VND"]
DAYS = [MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY]

EVERYTHING = Selection()
LAST = Selection(limit=1)


@pytest.fixture
def refresher(store: Store) -> SnapshotRefresher:
    return SnapshotRefresher(store)


def lay(store: Store, said: Bar) -> None:
    anchor = store.newest()[said.symbol].anchor
    assert store.lay([(said, anchor)], actor="203.0.113.9", late_after=0).changed == 1


def served(snapshot: Snapshot, symbol: str = "VCB", selection: Selection = LAST) -> list[Any]:
    return list(json.loads(snapshot.body([symbol], selection)).get(symbol, []))


# --- Following the log ----------------------------------------------------------------------------

Write = Callable[[Store, str], object]


def writes() -> st.SearchStrategy[Write]:
    """One call of the store that may change the market, with few values, so that they meet."""
    bars = st.builds(
        bar,
        st.sampled_from(SYMBOLS),
        st.sampled_from(DAYS),
        close=st.sampled_from([64_300, 64_350.5]),
        volume=st.integers(0, 3),
    )
    several = st.lists(bars, min_size=1, max_size=4)
    return st.one_of(
        st.builds(merging, several, st.sampled_from([CORE, INTERNAL])),
        st.builds(replacing, st.sampled_from(SYMBOLS), several),
        st.builds(laying, st.sampled_from(SYMBOLS), st.integers(0, 4)),
        st.builds(forgetting, st.sampled_from(SYMBOLS)),
        st.just(lambda store, fence: store.withdraw_actors(["203.0.113.9"])),
        st.just(lambda store, fence: store.complete_cycle(fence=fence, ends_overlays=True)),
        st.just(lambda store, fence: let_time_pass(store.client, seconds=TRUST_WINDOW)),
    )


def merging(bars: list[Bar], authority: Authority) -> Write:
    return lambda store, fence: store.merge(
        bars, authority, fence=fence if authority is CORE else ""
    )


def replacing(symbol: str, bars: list[Bar]) -> Write:
    by_day = {one.day: bar(symbol, one.day, close=one.close, volume=one.volume) for one in bars}
    series = [by_day[day] for day in sorted(by_day)]
    return lambda store, fence: store.replace_series(
        symbol, series, CORE, fence=fence, history_start=epoch_of(NEXT_MONDAY)
    )


def forgetting(symbol: str) -> Write:
    return lambda store, fence: store.forget(symbol)


def laying(symbol: str, volume: int) -> Write:
    def lay_it(store: Store, fence: str) -> None:
        if newest := store.newest([symbol]).get(symbol):
            said = bar(symbol, volume=volume, close=64_400)
            store.lay([(said, newest.anchor)], actor="203.0.113.9", late_after=0)

    return lay_it


def contents(snapshot: Snapshot) -> tuple[object, ...]:
    series = {
        symbol: [*(series.history or History()).rows(), (series.day, series.newest)]
        for symbol, series in snapshot.series.items()
    }
    revisions, removed = dict(snapshot.revisions), dict(snapshot.removed)
    return snapshot.position, series, dict(snapshot.overlays), revisions, removed


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.lists(writes(), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_refresher_that_follows_the_log_has_what_a_fresh_load_has(
    store_client: redis.Redis, steps: list[list[Write]]
) -> None:
    store_client.flushdb()
    store, refresher = a_store(store_client, log_length=10), None
    fence = lead(store)
    for writing in steps:
        for write in writing:
            write(store, fence)
        refresher = refresher or SnapshotRefresher(store)  # it begins with some market
        followed = refresher.current()
        fresh = load(store, store.state().position)
        assert contents(followed) == contents(fresh)
        for selection in (EVERYTHING, LAST, Selection(trusted=True)):
            assert followed.body(None, selection) == fresh.body(None, selection)


def test_a_log_that_does_not_reach_back_is_made_up_for_by_a_load(
    store_client: redis.Redis,
) -> None:
    store = a_store(store_client, log_length=5)
    refresher = SnapshotRefresher(store)
    store.merge([bar(day=THURSDAY)], INTERNAL)
    held = refresher.current()
    for volume in range(50):
        store.merge([bar(volume=volume)], INTERNAL)
    assert store.changes_since(held.position)[1] is None
    assert [one["volume"] for one in served(refresher.current(), selection=EVERYTHING)] == [
        1_000,
        49,
    ]


def test_the_store_brought_back_to_an_older_revision_is_loaded_anew(
    store: Store, store_client: redis.Redis, refresher: SnapshotRefresher, fence: str
) -> None:
    store.merge([bar(volume=1)], CORE, fence=fence)
    reads: Any = store_client
    older = {key: reads.dump(key) for key in reads.scan_iter()}
    store.merge([bar(volume=2), bar("FPT")], CORE, fence=fence)
    store.complete_cycle(fence=fence)
    assert refresher.current().position.revision == 2
    for key in reads.scan_iter():
        reads.delete(key)
    for key, value in older.items():
        reads.restore(key, 0, value)
    assert refresher.current().position.revision == 1
    assert json.loads(refresher.current().body(None, EVERYTHING)).keys() == {"VCB"}


# --- Bodies ---------------------------------------------------------------------------------------


def naive_body(
    series: dict[str, list[Bar]],
    overlays: dict[str, Bar],
    symbols: Iterable[str] | None,
    selection: Selection,
) -> dict[str, list[Any]]:
    """What the body must decode to: bars by day, an overlay in the place of its day's bar."""
    body = {}
    for symbol in sorted(series if symbols is None else set(symbols) & set(series)):
        by_day = {one.day: one for one in series[symbol]}
        if not selection.trusted and symbol in overlays:
            by_day[overlays[symbol].day] = overlays[symbol]
        chosen = [
            json.loads(by_day[day].encode())
            for day in sorted(by_day)
            if (selection.start is None or epoch_of(day) >= selection.start)
            and (selection.end is None or epoch_of(day) <= selection.end)
        ]
        chosen = chosen[-selection.limit :] if selection.limit else chosen
        if chosen:
            body[symbol] = chosen
    return body


around = st.none() | st.sampled_from([epoch_of(day) + off for day in DAYS for off in (-1, 0, 1)])
selections = st.builds(
    Selection,
    start=around,
    end=around,
    limit=st.none() | st.integers(1, 7),
    trusted=st.booleans(),
)


@pytest.fixture
def market_with_overlays(store: Store) -> tuple[dict[str, list[Bar]], dict[str, Bar]]:
    """One symbol with an overlay of its newest day, one of a later day, one without, one short."""
    series = {
        "VCB": [bar("VCB", day, volume=index) for index, day in enumerate(DAYS)],
        "FPT": [bar("FPT", day, close=99.5, half_width=0.25) for day in DAYS[:-1]],
        "VND": [bar("VND", day) for day in DAYS[1:]],
        "SSI": [bar("SSI", TUESDAY)],
    }
    overlays = {"VCB": bar("VCB", volume=7), "FPT": bar("FPT"), "SSI": bar("SSI")}
    for bars in series.values():
        store.merge(bars, INTERNAL)
    for said in overlays.values():
        lay(store, said)
    return series, overlays


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    symbols=st.none() | st.lists(st.sampled_from([*SYMBOLS, "SSI", "NONE"])), selection=selections
)
def test_a_body_is_what_a_naive_computation_gives(
    refresher: SnapshotRefresher,
    market_with_overlays: tuple[dict[str, list[Bar]], dict[str, Bar]],
    symbols: list[str] | None,
    selection: Selection,
) -> None:
    series, overlays = market_with_overlays
    body = refresher.current().body(symbols, selection)
    expected = naive_body(series, overlays, symbols, selection)
    decoded = json.loads(body)
    assert decoded == expected
    assert list(decoded) == list(expected)  # symbols come sorted


@pytest.mark.usefixtures("market_with_overlays")
class TestBody:
    def test_of_the_whole_market_is_built_once_a_snapshot(
        self, store: Store, refresher: SnapshotRefresher
    ) -> None:
        for selection in (EVERYTHING, LAST):
            body = refresher.current().body(None, selection)
            assert refresher.current().body(None, selection) is body
        store.merge([bar("VND", volume=9_000)], INTERNAL)
        assert b"9000" in refresher.current().body(None, EVERYTHING)

    def test_is_joined_from_the_very_bytes_stored(
        self, store: Store, refresher: SnapshotRefresher
    ) -> None:
        [(_, rows)] = store.series(["VND"])
        stored = b",".join(encoded for _, encoded in rows)
        assert refresher.current().body(["VND"], EVERYTHING) == b'{"VND":[%b]}' % stored

    def test_of_nothing_is_an_empty_object(self, refresher: SnapshotRefresher) -> None:
        assert refresher.current().body(["NONE"], EVERYTHING) == b"{}"
        assert refresher.current().body([], EVERYTHING) == b"{}"


def test_an_empty_market_has_an_empty_body(refresher: SnapshotRefresher) -> None:
    assert refresher.current().body(None, EVERYTHING) == b"{}"
    assert refresher.age() is None


def test_an_overlay_ends_in_the_snapshot_with_its_day(
    store: Store, refresher: SnapshotRefresher
) -> None:
    store.merge([bar(day=THURSDAY)], INTERNAL)
    lay(store, bar(day=FRIDAY))
    assert len(served(refresher.current(), selection=EVERYTHING)) == 2
    store.clock = clock_at(exchange_time(NEXT_MONDAY, 10))
    assert len(served(refresher.current(), selection=EVERYTHING)) == 1


def test_an_encoded_bar_tells_its_day_close_and_volume() -> None:
    one = bar(day=THURSDAY, volume=16_667_800, close=99.95, half_width=0.05)
    assert day_in(one.encode()) == epoch_of(THURSDAY)
    assert close_of(one.encode()) == 99.95
    assert volume_of(one.encode()) == 16_667_800
    assert bar_of(one.encode()) == one


def test_a_series_tells_its_last_volumes(store: Store, refresher: SnapshotRefresher) -> None:
    store.merge([bar(day=day, volume=index) for index, day in enumerate(DAYS)], INTERNAL)
    snapshot = refresher.current()
    assert snapshot.volumes(["VCB", "NONE"], 3) == {"VCB": [2, 3, 4]}
    assert snapshot.volumes(["VCB"], 60) == {"VCB": [0, 1, 2, 3, 4]}


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False], ids=["loading", "following"])
def test_a_label_is_never_newer_than_the_bytes(store_client: redis.Redis, fresh: bool) -> None:
    """A writer gives each revision its own number as volume, while readers look."""
    writer = a_store(store_client, log_length=50)
    last, done = 600, threading.Event()
    writer.merge([bar(volume=1)], INTERNAL)

    def write() -> None:
        fence = lead(writer)
        for volume in range(2, last + 1):
            if volume % 7:
                writer.merge([bar(volume=volume)], INTERNAL)
            else:  # as a series replaced
                writer.replace_series(
                    "VCB", [bar(volume=volume)], CORE, fence=fence, history_start=0
                )
        done.set()

    def read() -> tuple[int, int]:
        with connect(django_settings.REDIS_URL, timeout=5) as client:
            store, seen, ahead = a_store(client), 0, 0
            refresher = SnapshotRefresher(store)
            while not done.is_set():
                snapshot = SnapshotRefresher(store).current() if fresh else refresher.current()
                volume = served(snapshot)[0]["volume"]
                seen += 1
                ahead += snapshot.position.revision > volume
            snapshot = refresher.current()
            assert (snapshot.position.revision, served(snapshot)[0]["volume"]) == (last, last)
            return seen, ahead

    with ThreadPoolExecutor(3) as threads:
        writing = threads.submit(write)
        readers = [threads.submit(read) for _ in range(2)]
        writing.result()
        for reader in readers:
            seen, ahead = reader.result()
            assert seen > 10
            assert ahead == 0


class WrittenMeanwhile(Store):
    """Another process writes between the reading of the revision and that of the data."""

    meanwhile: list[Bar]

    def symbols(self) -> list[str]:
        self._write()
        return super().symbols()

    def changes_since(self, since: Position) -> tuple[State, list[Change] | None]:
        self._write()
        return super().changes_since(since)

    def _write(self) -> None:
        if self.meanwhile:
            self.merge([self.meanwhile.pop(0)], INTERNAL)


def test_what_is_written_while_a_snapshot_is_read_is_not_lost(store_client: redis.Redis) -> None:
    store = WrittenMeanwhile(
        store_client, clock=clock_at(exchange_time(FRIDAY, 10)), trust_window=TRUST_WINDOW
    )
    store.meanwhile = []
    store.merge([bar(volume=1)], INTERNAL)
    store.meanwhile = [bar(volume=2), bar("FPT", volume=2)]
    refresher = SnapshotRefresher(store)
    loaded = refresher.current()
    assert loaded.position.revision == 1
    assert served(loaded)[0]["volume"] == 2
    followed = refresher.current()
    assert followed.position.revision == 3
    assert served(followed, "FPT")[0]["volume"] == 2
    assert served(followed)[0]["volume"] == 2


# --- Threads --------------------------------------------------------------------------------------


class SlowStore(Store):
    """A store whose answers can be held up."""

    asked: threading.Event
    may_answer: threading.Event

    def changes_since(self, since: Position) -> tuple[State, list[Change] | None]:
        self.asked.set()
        assert self.may_answer.wait(10)
        return super().changes_since(since)


@pytest.fixture
def slow_store(store_client: redis.Redis) -> SlowStore:
    """A store with one bar."""
    store = SlowStore(
        store_client, clock=clock_at(exchange_time(FRIDAY, 10)), trust_window=TRUST_WINDOW
    )
    store.asked, store.may_answer = threading.Event(), threading.Event()
    store.merge([bar(volume=1)], INTERNAL)
    return store


def test_a_thread_that_refreshes_holds_up_nobody(slow_store: SlowStore) -> None:
    refresher = SnapshotRefresher(slow_store)
    held = refresher.current()
    slow_store.merge([bar(volume=2)], INTERNAL)
    with ThreadPoolExecutor(2) as threads:
        refreshing = threads.submit(refresher.current)
        try:
            assert slow_store.asked.wait(5)
            assert threads.submit(refresher.current).result(timeout=5) is held
        finally:
            slow_store.may_answer.set()
        assert served(refreshing.result())[0]["volume"] == 2


@pytest.mark.parametrize("knows_by", ["its own write", "a client"])
def test_who_knows_of_something_newer_waits_for_it(slow_store: SlowStore, knows_by: str) -> None:
    """Neither a sender's own bar, nor what another process served before, is missing from an
    answer."""
    refresher = SnapshotRefresher(slow_store)
    refresher.current()
    slow_store.merge([bar(volume=2)], INTERNAL)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(refresher.current)
        assert slow_store.asked.wait(5)
        position = slow_store.merge([bar(volume=3)], INTERNAL).position
        if knows_by == "a client":
            reading = threads.submit(refresher.current, at_least=position)
        else:
            refresher.expire()
            reading = threads.submit(refresher.current)
        slow_store.may_answer.set()
        assert served(reading.result())[0]["volume"] == 3


def test_threads_that_have_nothing_yet_wait_for_the_first_load(
    store: Store, refresher: SnapshotRefresher
) -> None:
    store.merge([bar()], INTERNAL)
    with ThreadPoolExecutor(8) as threads:
        snapshots = list(threads.map(lambda _: refresher.current(), range(32)))
    assert all(served(snapshot) for snapshot in snapshots)


# --- The cost of a refresh ------------------------------------------------------------------------


class TestARefresh:
    @pytest.fixture
    def commands(
        self, store: Store, store_client: redis.Redis, refresher: SnapshotRefresher, fence: str
    ) -> Iterator[Callable[[], dict[str, int]]]:
        """What the server was asked since; the market has 200 symbols, and the refresher has it."""
        reads: Any = store_client
        symbols = [f"S{number:03}" for number in range(200)]
        store.merge([bar(symbol, day) for symbol in symbols for day in DAYS], CORE, fence=fence)
        refresher.current()
        reads.config_resetstat()

        def commands() -> dict[str, int]:
            counted = reads.info("commandstats")
            reads.config_resetstat()
            return {name.removeprefix("cmdstat_"): s["calls"] for name, s in counted.items()}

        yield commands
        reads.config_resetstat()

    def test_after_one_bar_reads_the_log_and_no_series(
        self, store: Store, refresher: SnapshotRefresher, commands: Callable[[], dict[str, int]]
    ) -> None:
        store.merge([bar("S007", volume=5_000)], INTERNAL)
        commands()
        refresher.current()
        asked = commands()
        assert asked["xrange"] == 1
        assert not {"zrange", "hkeys", "hgetall"} & set(asked)

    def test_after_a_replaced_series_reads_that_one(
        self,
        store: Store,
        refresher: SnapshotRefresher,
        fence: str,
        commands: Callable[[], dict[str, int]],
    ) -> None:
        adjusted = [bar("S007", day, close=1_000) for day in DAYS]
        store.merge(adjusted, CORE, fence=fence)
        commands()
        snapshot = refresher.current()
        asked = commands()
        assert asked["xrange"] == asked["lrange"] == 1
        assert not {"hkeys", "hgetall"} & set(asked)
        assert [one["close"] for one in served(snapshot, "S007", EVERYTHING)] == [1_000] * 5

    def test_after_nothing_reads_nothing(
        self, refresher: SnapshotRefresher, commands: Callable[[], dict[str, int]]
    ) -> None:
        held = refresher.current()
        commands()
        assert refresher.current() is held
        assert not {"lrange", "zrange", "hkeys", "hgetall", "hmget"} & set(commands())

    def test_shares_what_has_not_changed_with_the_snapshot_before(
        self, store: Store, refresher: SnapshotRefresher, commands: Callable[[], dict[str, int]]
    ) -> None:
        before = refresher.current()
        store.merge([bar("S007", volume=5_000)], INTERNAL)
        after = refresher.current()
        assert after.series["S008"] is before.series["S008"]
        assert after.series["S007"].history is before.series["S007"].history
        assert served(before, "S007")[0]["volume"] == 1_000


# --- When the store goes away ---------------------------------------------------------------------


class TestTheStoreAway:
    def test_from_the_start_is_an_error(self, own_server: OwnServer) -> None:
        own_server.stop()
        refresher = SnapshotRefresher(a_store(own_server.client))
        with pytest.raises(StaleError, match="can't be reached"):
            refresher.current()
        assert refresher.age() is None

    def test_leaves_the_last_snapshot_and_its_age_grows(
        self, own_server: OwnServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = a_store(own_server.client)
        store.merge([bar()], INTERNAL)
        let_time_pass(own_server.client, seconds=100)
        refresher = SnapshotRefresher(store)
        held = refresher.current()
        age = refresher.age()
        assert age == pytest.approx(100, abs=2)
        own_server.stop()
        with caplog.at_level(logging.WARNING):
            assert refresher.current() is held
        assert "serving the last snapshot" in caplog.text
        assert (refresher.age() or 0) > (age or 0)

    def test_and_back_in_a_new_life_is_served_once_it_is_complete(
        self, own_server: OwnServer
    ) -> None:
        """It comes back empty; gossip comes first, then the worker's cycle."""
        store = a_store(own_server.client)
        store.merge([bar("VCB"), bar("FPT")], INTERNAL)
        store.complete_cycle(fence=lead(store))
        let_time_pass(own_server.client, seconds=100)
        refresher = SnapshotRefresher(store)
        held = refresher.current()
        own_server.forget()
        own_server.stop()
        own_server.start()
        assert refresher.current() is held
        assert (refresher.age() or 0) >= 100
        store.merge([bar("VCB", volume=2_000)], INTERNAL)
        assert refresher.current() is held
        fence = lead(store)
        store.merge([bar("FPT", volume=2_000)], CORE, fence=fence)
        assert refresher.current() is held
        store.complete_cycle(fence=fence)
        renewed = refresher.current()
        assert renewed.position.epoch != held.position.epoch
        assert renewed.position == store.state().position
        assert [served(renewed, s)[0]["volume"] for s in ("VCB", "FPT")] == [2_000, 2_000]

    def test_and_back_with_all_it_had_is_another_life_too(self, own_server: OwnServer) -> None:
        store = a_store(own_server.client)
        fence = lead(store)
        store.merge([bar()], CORE, fence=fence)
        store.complete_cycle(fence=fence)
        refresher = SnapshotRefresher(store)
        held = refresher.current()
        own_server.stop()
        own_server.start()
        assert refresher.current() is held
        assert store.state().position.epoch != held.position.epoch
        assert store.state().position.revision == held.position.revision
        store.complete_cycle(fence=lead(store))
        assert refresher.current().position == store.state().position

    def test_an_empty_snapshot_does_not_wait_for_a_complete_market(
        self, own_server: OwnServer
    ) -> None:
        store = a_store(own_server.client)
        refresher = SnapshotRefresher(store)
        assert refresher.current().body(None, EVERYTHING) == b"{}"
        own_server.stop()
        own_server.start()
        store.merge([bar()], INTERNAL)
        assert served(refresher.current()) == [json.loads(bar().encode())]


def test_a_process_that_starts_in_an_incomplete_life_serves_what_there_is(
    store: Store, store_client: redis.Redis
) -> None:
    store.merge([bar()], INTERNAL)
    store_client.set(f"{ROOT}:run_id", "0" * 40)
    assert store.state().ready_epoch != store.state().position.epoch
    assert served(SnapshotRefresher(store).current()) == [json.loads(bar().encode())]


def test_days_are_inclusive(store: Store, refresher: SnapshotRefresher) -> None:
    store.merge([bar(day=day) for day in DAYS], INTERNAL)
    chosen = Selection(start=epoch_of(TUESDAY), end=epoch_of(THURSDAY))
    assert [one["time"][:10] for one in served(refresher.current(), selection=chosen)] == [
        day.isoformat() for day in (TUESDAY, WEDNESDAY, THURSDAY)
    ]
    assert served(refresher.current(), selection=Selection(start=epoch_of(NEXT_MONDAY))) == []


class TestLifetime:
    """A process doesn't ask the store at every read where it stands."""

    def test_within_it_the_store_is_not_asked(self, store: Store) -> None:
        store.merge([bar()], CORE, fence=lead(store))
        refresher = SnapshotRefresher(store, lifetime=60)
        held = refresher.current()
        store.merge([bar(volume=2_000)], Authority.INTERNAL)
        assert refresher.current() is held

    def test_a_write_of_this_process_ends_it(self, store: Store) -> None:
        store.merge([bar()], CORE, fence=lead(store))
        refresher = SnapshotRefresher(store, lifetime=60)
        refresher.current()
        merged = store.merge([bar(volume=2_000)], Authority.INTERNAL)
        refresher.expire()
        assert refresher.current().position == merged.position

    def test_a_later_position_that_a_client_has_ends_it(self, store: Store) -> None:
        store.merge([bar()], CORE, fence=lead(store))
        refresher = SnapshotRefresher(store, lifetime=60)
        held = refresher.current()
        merged = store.merge([bar(volume=2_000)], Authority.INTERNAL)
        assert refresher.current(at_least=held.position) is held
        assert refresher.current(at_least=Position("another", 99)) is held
        assert refresher.current(at_least=merged.position).position == merged.position

    def test_what_may_lag_is_read_again_after_that_time(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1_000.0
        monkeypatch.setattr("tickers.snapshot.refresh.time.monotonic", lambda: now)
        store.merge([bar()], CORE, fence=lead(store))
        refresher = SnapshotRefresher(store)
        held = refresher.recent(within=5)
        merged = store.merge([bar(volume=2_000)], Authority.INTERNAL)
        refresher.expire()
        now += 4.9
        assert refresher.recent(within=5) is held
        now += 0.1
        assert refresher.recent(within=5).position == merged.position
