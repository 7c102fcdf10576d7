"""The store beside the merge table: who may write, what is written, and how it is read back."""

import datetime as dt
import itertools
from collections.abc import Callable
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
    WEDNESDAY,
    a_store,
    bar,
    clock_at,
    dump,
    exchange_time,
    lead,
    let_time_pass,
)
from tickers.bar import Bar, epoch_of
from tickers.market_clock import is_trading_day
from tickers.store.records import Change, Position
from tickers.store.store import ROOT, FencedError, Store
from tickers.verdict import Authority, Verdict

CORE, FOLLOWED, INTERNAL = Authority.CORE, Authority.FOLLOWED, Authority.INTERNAL
HOME, AWAY = "203.0.113.9", "198.51.100.4"


def lay(
    store: Store,
    said: Bar,
    *,
    anchor: str = "64300",
    actor: str = HOME,
    late_after: float | None = 0,
) -> Verdict:
    return store.lay([(said, anchor)], actor=actor, late_after=late_after).verdicts[0]


def replace(
    store: Store,
    bars: list[Bar],
    *,
    fence: str,
    authority: Authority = CORE,
    history_start: dt.date = MONDAY,
) -> Verdict:
    return store.replace_series(
        bars[0].symbol, bars, authority, fence=fence, history_start=epoch_of(history_start)
    )


def revision(store: Store) -> int:
    return store.state().position.revision


def since(store: Store, revision: int) -> list[Change] | None:
    return store.changes_since(Position(store.state().position.epoch, revision))[1]


def days(count: int, *, last: dt.date = FRIDAY) -> list[dt.date]:
    """The trading days that end with ``last``."""
    back = (last - dt.timedelta(days=n) for n in itertools.count())
    return list(itertools.islice(filter(is_trading_day, back), count))[::-1]


# --- Who may write --------------------------------------------------------------------------------

Write = Callable[[Store, str], object]
WRITES: dict[str, Write] = {
    "merge": lambda store, fence: store.merge([bar(volume=2_000)], CORE, fence=fence),
    "merge of what was followed": lambda store, fence: store.merge(
        [bar(volume=2_000)], FOLLOWED, fence=fence or "none"
    ),
    "replace_series": lambda store, fence: replace(store, [bar(volume=2_000)], fence=fence),
    "complete_cycle": lambda store, fence: store.complete_cycle(fence=fence, ends_overlays=True),
    "remember_followed": lambda store, fence: store.remember_followed({"": "1"}, fence=fence),
    "remember_batch_size": lambda store, fence: store.remember_batch_size(
        "a.test", {"size": 100}, fence=fence
    ),
    "write_status": lambda store, fence: store.write_status({"iterations": 1}, fence=fence),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
class TestFencing:
    def refused(self, store: Store, client: redis.Redis, write: Write, fence: str) -> bool:
        let_time_pass(client, seconds=100)
        before, age = dump(client), store.state().age
        with pytest.raises(FencedError, match="another worker"):
            write(store, fence)
        assert age is not None
        return dump(client) == before and (store.state().age or 0) >= age

    @pytest.fixture(autouse=True)
    def some_market(self, store: Store) -> None:
        store.merge([bar()], INTERNAL)
        lay(store, bar(close=64_400, volume=1_500))

    def test_without_a_lease_writes_nothing(
        self, store: Store, store_client: redis.Redis, write: Write
    ) -> None:
        assert self.refused(store, store_client, write, "")

    def test_under_another_workers_lease_writes_nothing(
        self, store: Store, store_client: redis.Redis, write: Write
    ) -> None:
        earlier = lead(store)
        store.release_lease(earlier)
        later = lead(store)
        assert self.refused(store, store_client, write, earlier)
        write(store, later)

    def test_after_the_lease_ran_out_writes_nothing(
        self, store: Store, store_client: redis.Redis, write: Write
    ) -> None:
        fence = lead(store)
        store_client.pexpireat(f"{ROOT}:lease", 1)
        assert self.refused(store, store_client, write, fence)


# --- Lives of the store ---------------------------------------------------------------------------


class TestEpoch:
    def test_stays_while_the_server_lives(self, store: Store, store_client: redis.Redis) -> None:
        first = store.state().position
        store.merge([bar()], INTERNAL)
        assert a_store(store_client).state().position == Position(first.epoch, 1)

    @pytest.mark.parametrize(
        "touch",
        [
            lambda store, _: store.state(),
            lambda store, _: store.merge([bar()], INTERNAL),
            lambda store, _: lay(store, bar(volume=1)),
            lambda store, fence: replace(store, [bar()], fence=fence),
            lambda store, fence: store.complete_cycle(fence=fence),
        ],
        ids=["state", "merge", "lay", "replace_series", "complete_cycle"],
    )
    def test_is_renewed_by_whoever_first_meets_another_server(
        self, store: Store, store_client: redis.Redis, fence: str, touch: Write
    ) -> None:
        store.merge([bar()], INTERNAL)
        before = store.state().position
        store_client.set(f"{ROOT}:run_id", "0" * 40)
        touch(store, fence)
        after = store_client.get(f"{ROOT}:epoch")
        assert after not in (None, before.epoch.encode())
        assert store_client.get(f"{ROOT}:run_id") != b"0" * 40
        assert store.state().position.epoch.encode() == after

    def test_is_ready_once_a_cycle_has_spoken_of_every_symbol(
        self, store: Store, store_client: redis.Redis, fence: str
    ) -> None:
        store.merge([bar()], CORE, fence=fence)
        assert store.state().ready_epoch == ""
        store.complete_cycle(fence=fence)
        state = store.state()
        assert state.ready_epoch == state.position.epoch
        store_client.set(f"{ROOT}:run_id", "0" * 40)
        state = store.state()
        assert state.ready_epoch not in ("", state.position.epoch)


class TestPosition:
    @pytest.mark.parametrize("text", ["ab12-34", ' W/"ab12-34" ', '"ab12-34"'])
    def test_reads_its_own_name_and_etags(self, text: str) -> None:
        position = Position.parse(text)
        assert position == Position("ab12", 34)
        assert str(position) == "ab12-34"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ab12",
            "ab12-",
            "-34",
            "ab12--34",
            "ab12-3.4",
            "ab12-34-5",
            "ab 12-34",
            "ab12-٣",
            "*",
        ],
    )
    def test_refuses_what_names_no_state(self, text: str) -> None:
        with pytest.raises(ValueError, match="position"):
            Position.parse(text)

    def test_is_what_the_store_says(self, store: Store) -> None:
        position = store.state().position
        assert Position.parse(str(position)) == position


# --- The change log -------------------------------------------------------------------------------


class TestChangeLog:
    def test_tells_what_changed_since_a_revision_oldest_first(self, store: Store) -> None:
        one, two = bar(volume=1), bar(volume=2)
        store.merge([one], INTERNAL)
        store.merge([two, bar("FPT")], FOLLOWED)
        assert since(store, 0) == [
            Change(1, "INTERNAL", "VCB", one.encode()),
            Change(2, "FOLLOWED", "VCB", two.encode()),
            Change(2, "FOLLOWED", "FPT", bar("FPT").encode()),
        ]
        assert since(store, 2) == []

    def test_is_trimmed_in_whole_revisions(self, store_client: redis.Redis) -> None:
        store, reads = a_store(store_client, log_length=20), store_client
        symbols = ["VCB", "FPT", "VND"]
        for volume in range(1, 31):
            store.merge([bar(symbol, volume=volume) for symbol in symbols], INTERNAL)
            floor = int(reads.get(f"{ROOT}:log_floor") or 1)
            for position in range(volume):
                told = since(store, position)
                if position + 1 < floor:
                    assert told is None
                else:
                    assert [(c.revision, c.symbol) for c in told or []] == [
                        (later, symbol)
                        for later in range(position + 1, volume + 1)
                        for symbol in symbols
                    ]
            assert reads.xlen(f"{ROOT}:changes") < 20 * 1.1 + len(symbols)
        assert 30 - 20 / 3 <= floor <= 30 - 15 / 3

    def test_of_a_replaced_series_is_one_entry(self, store: Store, fence: str) -> None:
        replace(store, [bar(day=day) for day in days(500)], fence=fence)
        assert since(store, 0) == [Change(1, "replaced", "VCB", None)]


# --- What is written ------------------------------------------------------------------------------


class TestNothingChanged:
    def test_by_repeats_and_late_bars_means_nothing_written(
        self, store: Store, store_client: redis.Redis, fence: str
    ) -> None:
        history = [bar(day=THURSDAY), bar(day=FRIDAY, volume=2_000)]
        replace(store, history, fence=fence)
        store.merge([bar("FPT", volume=2_000)], INTERNAL)
        lay(store, bar("FPT", volume=3_000))
        overlaid = bar(close=64_350, volume=3_000)
        lay(store, overlaid)
        store.merge(history, CORE, fence=fence)  # ends the overlay of VCB
        before = dump(store_client)
        store.merge(history, CORE, fence=fence)
        store.merge([*history, bar(day=FRIDAY), bar(day=NEXT_MONDAY)], INTERNAL)
        replace(store, history, fence=fence)
        replace(store, history[:1], fence=fence)
        lay(store, bar("FPT", volume=3_000))
        lay(store, bar("FPT", volume=2_999))
        lay(store, bar("FPT", volume=4_000), anchor="1")
        lay(store, bar("FPT", volume=4_000), late_after=None)
        store.withdraw_actors([AWAY])
        store.state()
        assert dump(store_client) == before

    def test_even_by_a_series_refused(
        self, store: Store, store_client: redis.Redis, fence: str
    ) -> None:
        replace(store, [bar(day=day) for day in days(10)], fence=fence, history_start=days(10)[0])
        lay(store, bar(volume=3_000))
        let_time_pass(store_client, seconds=100)
        before = dump(store_client)
        short = [bar(day=day, close=1_000) for day in days(9)]
        verdict = replace(store, short, fence=fence, history_start=days(10)[0])
        assert verdict is Verdict.LOSES_DAYS
        assert dump(store_client) == before
        assert (store.state().age or 0) >= 100


class TestReplaceSeries:
    @pytest.mark.parametrize(
        ("lost", "verdict"), [(2, Verdict.REPLACED), (3, Verdict.LOSES_DAYS)], ids=["2 %", "3 %"]
    )
    def test_may_lose_two_in_a_hundred_of_the_stored_days(
        self, store: Store, fence: str, lost: int, verdict: Verdict
    ) -> None:
        start = days(100)[0]
        replace(store, [bar(day=day) for day in days(100)], fence=fence, history_start=start)
        answer = [bar(day=day) for day in days(100) if day not in days(100)[10 : 10 + lost]]
        assert replace(store, answer, fence=fence, history_start=start) is verdict
        [(_, rows)] = store.series(["VCB"])
        assert len(rows) == (100 - lost if verdict is Verdict.REPLACED else 100)

    def test_counts_no_day_before_the_history_start_as_lost(self, store: Store, fence: str) -> None:
        replace(store, [bar(day=day) for day in days(10)], fence=fence, history_start=days(10)[0])
        recent = [bar(day=day) for day in days(5)]
        assert replace(store, recent, fence=fence, history_start=days(5)[0]) is Verdict.REPLACED
        assert store.loaded() == {"VCB": epoch_of(days(5)[0])}

    def test_keeps_stored_bars_of_days_after_the_answers_last(
        self, store: Store, fence: str
    ) -> None:
        store.merge([bar(day=FRIDAY, volume=7)], INTERNAL)
        history = [bar(day=WEDNESDAY), bar(day=THURSDAY)]
        assert replace(store, history, fence=fence) is Verdict.REPLACED
        [(_, rows)] = store.series(["VCB"])
        assert [encoded for _, encoded in rows] == [
            one.encode() for one in [*history, bar(day=FRIDAY, volume=7)]
        ]
        assert store.newest()["VCB"].authority is INTERNAL

    def test_leaves_future_days_out(self, store: Store, fence: str) -> None:
        assert replace(store, [bar(), bar(day=NEXT_MONDAY)], fence=fence) is Verdict.REPLACED
        assert store.newest()["VCB"].day == epoch_of(FRIDAY)
        assert replace(store, [bar("FPT", NEXT_MONDAY)], fence=fence) is Verdict.FUTURE
        assert store.symbols() == ["VCB"]

    def test_holds_to_the_most_symbols_for_others(self, store_client: redis.Redis) -> None:
        store = a_store(store_client, max_symbols=1)
        fence = lead(store)
        replace(store, [bar("VCB")], fence=fence)
        full = replace(store, [bar("FPT")], fence=fence, authority=FOLLOWED)
        assert full is Verdict.FULL
        assert replace(store, [bar("FPT")], fence=fence, authority=CORE) is Verdict.REPLACED

    def test_confirms_the_newest_bar_of_a_series_that_stays(self, store: Store, fence: str) -> None:
        store.merge([bar()], INTERNAL)
        assert replace(store, [bar()], fence=fence) is Verdict.CONFIRMED
        assert since(store, 1) == [Change(2, "CORE", "VCB", bar().encode())]
        assert store.changed() == {"VCB": 2}

    @pytest.mark.parametrize("second", [THURSDAY, FRIDAY], ids=["unsorted", "twice a day"])
    def test_takes_no_bars_that_are_no_series(
        self, store: Store, fence: str, second: dt.date
    ) -> None:
        with pytest.raises(ValueError, match="sorted by day"):
            replace(store, [bar(day=FRIDAY), bar(day=second, volume=2)], fence=fence)
        assert store.symbols() == []

    def test_takes_twenty_thousand_bars_and_no_more(self, store: Store, fence: str) -> None:
        bars = [bar(day=day) for day in days(20_001)]
        assert replace(store, bars[1:], fence=fence) is Verdict.REPLACED
        [(_, rows)] = store.series(["VCB"])
        assert rows == [(one.epoch, one.encode()) for one in bars[1:]]
        with pytest.raises(ValueError, match="at most 20000"):
            replace(store, bars, fence=fence)


def test_a_merge_of_seven_thousand_bars_is_three_revisions(store: Store, fence: str) -> None:
    symbols = [f"S{number:04}" for number in range(7_000)]
    merged = store.merge([bar(symbol) for symbol in symbols], CORE, fence=fence)
    assert merged.verdicts == [Verdict.ADDED] * 7_000
    assert merged.changed == 7_000
    assert merged.position.revision == 3
    assert store.symbols() == symbols
    assert len(store.newest()) == 7_000
    assert store.merge([bar(s) for s in symbols], CORE, fence=fence).changed == 0
    assert revision(store) == 3


def test_a_merge_of_one_symbols_bars_in_any_order_is_its_series(store: Store) -> None:
    history = [bar(day=day) for day in days(3_000)]
    store.merge(history[1::2] + history[::2], FOLLOWED)
    [(_, rows)] = store.series(["VCB"])
    assert rows == [(one.epoch, one.encode()) for one in history]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_of_bars_and_series_leaves_one_bar_a_day_sorted(
    store_client: redis.Redis, data: st.DataObject
) -> None:
    store_client.flushdb()
    store = a_store(store_client)
    fence = lead(store)
    some_days = st.lists(st.sampled_from(days(40)), min_size=1, max_size=30)
    expected: dict[dt.date, Bar] = {}
    for step in range(data.draw(st.integers(1, 5))):
        said = [bar(day=day, volume=100 * step + at) for at, day in enumerate(data.draw(some_days))]
        if data.draw(st.booleans()):
            by_day = {one.day: one for one in said}
            series = [by_day[day] for day in sorted(by_day)]
            replace(store, series, fence=fence, history_start=NEXT_MONDAY)  # nothing counts as lost
            later = {day: one for day, one in expected.items() if day > series[-1].day}
            expected = by_day | later
        else:
            store.merge(said, CORE, fence=fence)
            expected |= {one.day: one for one in said}
        rows = [(expected[day].epoch, expected[day].encode()) for day in sorted(expected)]
        assert list(store.series(["VCB"])) == [("VCB", rows)]
        assert store.newest()["VCB"].json == rows[-1][1]
        for last in (1, 2, 7):
            assert list(store.series(["VCB"], last=last)) == [("VCB", rows[-last:])]


def test_keys_of_another_schema_are_left_alone(store: Store, store_client: redis.Redis) -> None:
    """So that the code before and after an upgrade may run on one server."""
    store_client.zadd("{market}:bars:VCB", {bar(day=THURSDAY).encode(): 1})
    store_client.hset("{market}:last", "VCB", "of another layout")
    store_client.set("{market}:revision", 70)
    before = dump(store_client)
    assert store.symbols() == []
    store.merge([bar()], CORE, fence=lead(store))
    assert list(store.series(["VCB"])) == [("VCB", [(bar().epoch, bar().encode())])]
    assert revision(store) == 1
    assert before.items() <= dump(store_client).items()
    assert all(key.startswith(f"{ROOT}:".encode()) for key in dump(store_client).keys() - before)


# --- The trust window -----------------------------------------------------------------------------


class TestTrustWindow:
    def test_opens_with_the_first_trusted_update(self, store: Store) -> None:
        assert store.state().age is None
        lay(store, bar())
        assert store.state().age is None
        store.merge([bar()], INTERNAL)
        assert store.state().age == pytest.approx(0, abs=2)

    REFRESHING: dict[str, Write] = {
        "repeated": lambda store, _: store.merge([bar()], INTERNAL),
        "late": lambda store, _: store.merge([bar(volume=1)], INTERNAL),
        "whole": lambda store, fence: replace(store, [bar()], fence=fence),
        "cycle": lambda store, fence: store.complete_cycle(fence=fence),
    }

    @pytest.mark.parametrize("update", REFRESHING.values(), ids=REFRESHING)
    def test_is_refreshed_by_what_is_valid_changed_or_not(
        self, store: Store, store_client: redis.Redis, fence: str, update: Write
    ) -> None:
        replace(store, [bar()], fence=fence)
        let_time_pass(store_client, seconds=100)
        assert store.state().age == pytest.approx(100, abs=2)
        update(store, fence)
        assert store.state().age == pytest.approx(0, abs=2)
        assert revision(store) == 1

    NOT_REFRESHING: dict[str, Write] = {
        "future": lambda store, _: store.merge([bar(day=NEXT_MONDAY)], INTERNAL),
        "too old": lambda store, _: store.merge([bar(day=dt.date(1970, 1, 1))], INTERNAL),
        "full": lambda store, _: store.merge([bar("FPT")], INTERNAL),
        "public": lambda store, _: lay(store, bar(volume=9_000)),
        "cycle without an update": lambda store, fence: store.complete_cycle(fence=fence, age=None),
    }

    @pytest.mark.parametrize("update", NOT_REFRESHING.values(), ids=NOT_REFRESHING)
    def test_is_not_refreshed_by_what_brought_no_valid_bar(
        self, store_client: redis.Redis, update: Write
    ) -> None:
        store = a_store(store_client, max_symbols=1, history_start=MONDAY)
        store.merge([bar()], INTERNAL)
        let_time_pass(store_client, seconds=100)
        update(store, lead(store))
        assert store.state().age == pytest.approx(100, abs=2)

    AGED: dict[str, Callable[[Store, str, float], object]] = {
        "merge": lambda store, fence, age: store.merge([bar()], FOLLOWED, fence=fence, age=age),
        "replace_series": lambda store, fence, age: store.replace_series(
            "VCB", [bar()], FOLLOWED, fence=fence, history_start=0, age=age
        ),
        "complete_cycle": lambda store, fence, age: store.complete_cycle(fence=fence, age=age),
    }

    @pytest.mark.parametrize("update", AGED.values(), ids=AGED)
    def test_starts_as_much_earlier_as_the_data_is_old_and_never_moves_back(
        self,
        store: Store,
        store_client: redis.Redis,
        fence: str,
        update: Callable[[Store, str, float], object],
    ) -> None:
        store.merge([bar()], FOLLOWED)
        let_time_pass(store_client, seconds=100)
        update(store, fence, 40)
        assert store.state().age == pytest.approx(40, abs=2)
        update(store, fence, 70)
        assert store.state().age == pytest.approx(40, abs=2)


# --- Overlays -------------------------------------------------------------------------------------


class TestLaying:
    def test_refuses_an_unknown_symbol(self, store: Store) -> None:
        assert lay(store, bar()) is Verdict.UNKNOWN

    @pytest.mark.parametrize("day", [THURSDAY, FRIDAY + dt.timedelta(days=1)])
    def test_refuses_another_day_than_the_current_trading_day(
        self, store: Store, day: dt.date
    ) -> None:
        store.merge([bar(day=WEDNESDAY)], INTERNAL)
        assert lay(store, bar(day=day)) is Verdict.OTHER_DAY
        assert lay(store, bar(day=FRIDAY)) is Verdict.LAID

    def test_takes_fridays_bars_on_sunday(self, store_client: redis.Redis) -> None:
        store = a_store(store_client, at=exchange_time(FRIDAY + dt.timedelta(days=2), 12))
        store.merge([bar()], INTERNAL)
        assert lay(store, bar(volume=2_000)) is Verdict.LAID

    def test_refuses_a_smaller_volume_than_what_is_served(self, store: Store) -> None:
        store.merge([bar(volume=1_000)], INTERNAL)
        assert lay(store, bar(volume=999)) is Verdict.SMALLER_VOLUME
        assert lay(store, bar(volume=2_000)) is Verdict.LAID
        assert lay(store, bar(volume=1_999)) is Verdict.SMALLER_VOLUME
        assert lay(store, bar(volume=2_000, close=64_400), actor=AWAY) is Verdict.LAID

    def test_compares_volumes_of_the_same_day_only(self, store: Store) -> None:
        store.merge([bar(day=THURSDAY, volume=9_000)], INTERNAL)
        assert lay(store, bar(day=FRIDAY, volume=1)) is Verdict.LAID

    def test_accepts_what_is_served_already_and_changes_nothing(self, store: Store) -> None:
        store.merge([bar()], INTERNAL)
        assert lay(store, bar()) is Verdict.UNCHANGED
        lay(store, bar(volume=2_000))
        assert lay(store, bar(volume=2_000), actor=AWAY) is Verdict.UNCHANGED
        assert store.overlays()["VCB"].actors == (HOME,)
        assert revision(store) == 2

    def test_refuses_a_bar_judged_against_an_anchor_that_moved(self, store: Store) -> None:
        store.merge([bar(close=64_200)], INTERNAL)
        assert lay(store, bar(volume=2_000), anchor="64300") is Verdict.ANCHOR_MOVED
        assert lay(store, bar(volume=2_000), anchor="64200") is Verdict.LAID

    def test_is_judged_against_the_trusted_close_however_many_bars_are_laid(
        self, store: Store
    ) -> None:
        store.merge([bar()], INTERNAL)
        lay(store, bar(close=70_000, volume=2_000))
        assert store.newest()["VCB"].anchor == "64300"
        step = bar(close=76_000, volume=3_000)
        assert lay(store, step, anchor="70000") is Verdict.ANCHOR_MOVED

    def test_decides_each_bar_of_a_list_by_what_came_before(self, store: Store) -> None:
        store.merge([bar()], INTERNAL)
        said = [bar(volume=3_000), bar(volume=2_000), bar("FPT"), bar(volume=3_000)]
        merged = store.lay([(one, "64300") for one in said], actor=HOME, late_after=0)
        assert merged.verdicts == [
            Verdict.LAID,
            Verdict.SMALLER_VOLUME,
            Verdict.UNKNOWN,
            Verdict.UNCHANGED,
        ]
        assert merged.position.revision == 2

    def test_never_serves_when_told_so(self, store: Store) -> None:
        store.merge([bar()], INTERNAL)
        assert lay(store, bar(volume=2_000), late_after=None) is Verdict.JUDGED
        assert lay(store, bar(volume=999), late_after=None) is Verdict.SMALLER_VOLUME
        assert store.overlays() == {}

    def test_when_late_waits_for_the_trusted_bar_to_be_late(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        store.merge([bar()], INTERNAL)
        let_time_pass(store_client, seconds=57)
        assert lay(store, bar(volume=2_000), late_after=60) is Verdict.JUDGED
        let_time_pass(store_client, seconds=3)
        assert lay(store, bar(volume=2_000), late_after=60) is Verdict.LAID

    def test_when_late_a_complete_cycle_has_spoken_of_every_symbol(
        self, store: Store, store_client: redis.Redis, fence: str
    ) -> None:
        store.merge([bar()], INTERNAL)
        let_time_pass(store_client, seconds=100)
        store.complete_cycle(fence=fence)
        assert lay(store, bar(volume=2_000), late_after=60) is Verdict.JUDGED
        let_time_pass(store_client, seconds=60)
        assert lay(store, bar(volume=2_000), late_after=60) is Verdict.LAID


SAME, MORE, OLD = bar(), bar(volume=1_001), bar(day=THURSDAY)
ENDS: dict[str, Write] = {
    "core repeats": lambda store, fence: store.merge([SAME], CORE, fence=fence),
    "core changes": lambda store, fence: store.merge([MORE], CORE, fence=fence),
    "internal repeats": lambda store, _: store.merge([SAME], INTERNAL),
    "internal is late": lambda store, _: store.merge([bar(volume=1)], INTERNAL),
    "followed repeats": lambda store, _: store.merge([SAME], FOLLOWED),
    "an older day": lambda store, _: store.merge([OLD], FOLLOWED),
    "series confirmed": lambda store, fence: replace(store, [OLD, SAME], fence=fence),
    "series replaced": lambda store, fence: replace(store, [OLD, MORE], fence=fence),
    "actor banned": lambda store, _: store.withdraw_actors([AWAY, HOME]),
    "complete cycle": lambda store, fence: store.complete_cycle(fence=fence, ends_overlays=True),
}


class TestTheEndOfAnOverlay:
    @pytest.fixture(autouse=True)
    def overlay(self, store: Store, fence: str) -> None:
        replace(store, [bar(day=THURSDAY), bar()], fence=fence)
        store.merge([bar("FPT")], INTERNAL)
        assert lay(store, bar(close=64_400, volume=5_000)) is Verdict.LAID
        assert revision(store) == 3

    def withdrawn(self, store: Store) -> list[str]:
        """The symbols whose overlays ended in the one revision since, and who is gone."""
        changes = since(store, 3) or []
        assert {change.revision for change in changes} <= {4}
        return [change.symbol for change in changes if change.what == "withdrawn"]

    @pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
    def test_is_a_log_entry(self, store: Store, fence: str, end: Write) -> None:
        end(store, fence)
        assert store.overlays() == {}
        assert self.withdrawn(store) == ["VCB"]
        end(store, fence)
        assert self.withdrawn(store) == ["VCB"]

    def test_of_each_comes_in_its_own_time(self, store: Store, store_client: redis.Redis) -> None:
        let_time_pass(store_client, seconds=200)
        lay(store, bar("FPT", volume=2_000))
        let_time_pass(store_client, seconds=102)
        assert store.state().overlays == 1
        assert set(store.overlays()) == {"FPT"}
        let_time_pass(store_client, seconds=150)
        assert store.state().overlays == 1
        let_time_pass(store_client, seconds=50)
        assert store.state().overlays == 0

    def test_comes_a_trust_window_after_it_was_laid(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        let_time_pass(store_client, seconds=298)
        assert store.state().overlays == 1
        let_time_pass(store_client, seconds=2)
        assert store.state().overlays == 0
        assert self.withdrawn(store) == ["VCB"]

    @pytest.mark.parametrize("authority", [FOLLOWED, INTERNAL])
    def test_comes_with_the_first_trusted_bar_of_its_day(
        self, store: Store, authority: Authority
    ) -> None:
        store.merge([bar("VND", THURSDAY)], authority)
        lay(store, bar("VND", FRIDAY, volume=5_000))
        store.merge([bar("VND", FRIDAY, volume=1)], authority)
        assert set(store.overlays()) == {"VCB"}
        assert [change.what for change in since(store, 5) or []] == ["withdrawn", authority]

    def test_comes_with_the_end_of_its_day(self, store: Store) -> None:
        store.clock = clock_at(exchange_time(NEXT_MONDAY, 8))
        assert store.state().overlays == 1  # Friday is the current trading day until nine
        store.clock = clock_at(exchange_time(NEXT_MONDAY, 9))
        assert store.state().overlays == 0
        assert self.withdrawn(store) == ["VCB"]

    LOOKS: dict[str, Write] = {
        "merge": lambda store, _: store.merge([bar("FPT")], INTERNAL),
        "lay": lambda store, _: lay(store, bar("FPT")),
        "replace_series": lambda store, fence: replace(store, [bar("FPT")], fence=fence),
    }

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
    def test_is_brought_by_whoever_writes_first(
        self, store: Store, store_client: redis.Redis, fence: str, look: Write
    ) -> None:
        let_time_pass(store_client, seconds=300)
        look(store, fence)
        assert store.overlays() == {}
        assert self.withdrawn(store) == ["VCB"]

    STAYS: dict[str, Write] = {
        "another symbol": lambda store, _: store.merge([bar("FPT")], INTERNAL),
        "a future day": lambda store, _: store.merge([bar(day=NEXT_MONDAY)], INTERNAL),
        "another actor banned": lambda store, _: store.withdraw_actors([AWAY]),
        "a cycle that ends none": lambda store, fence: store.complete_cycle(fence=fence),
        "a public bar refused": lambda store, _: lay(store, bar(volume=4_999), actor=AWAY),
        "a series refused": lambda store, fence: replace(store, [bar()], fence=fence),
    }

    @pytest.mark.parametrize("event", STAYS.values(), ids=STAYS)
    def test_does_not_come_by(self, store: Store, fence: str, event: Write) -> None:
        event(store, fence)
        assert store.overlays()["VCB"].volume == 5_000
        assert revision(store) == 3

    def test_says_how_many_ended_with_a_ban(self, store: Store) -> None:
        lay(store, bar("FPT", volume=5_000), actor=AWAY)
        assert store.withdraw_actors([]) == 0
        assert store.withdraw_actors([AWAY]) == 1
        assert store.withdraw_actors([AWAY, HOME]) == 1


class TestHowOftenAnOverlayChanges:
    """Else senders decide how far back the change log reaches."""

    @pytest.fixture(autouse=True)
    def market(self, store: Store) -> None:
        store.merge([bar(), bar("FPT")], INTERNAL)

    def lay_many(self, store: Store, count: int, *, volume: int = 2_000) -> list[Verdict]:
        said = [(bar(volume=volume + n), "64300") for n in range(count)]
        return store.lay(said, actor=HOME, late_after=0).verdicts

    def test_is_ten_times_a_minute_and_the_rest_is_judged(self, store: Store) -> None:
        before = revision(store)
        assert self.lay_many(store, 1_000) == [Verdict.LAID] * 10 + [Verdict.JUDGED] * 990
        assert len(since(store, before) or []) == 10
        assert store.overlays()["VCB"].volume == 2_009

    def test_is_of_all_senders_together(self, store: Store) -> None:
        self.lay_many(store, 10)
        assert lay(store, bar(volume=3_000), actor=AWAY) is Verdict.JUDGED

    def test_is_of_each_symbol(self, store: Store) -> None:
        self.lay_many(store, 10)
        assert lay(store, bar("FPT", volume=3_000)) is Verdict.LAID

    def test_counts_what_has_ended_meanwhile(self, store: Store) -> None:
        for n in range(10):
            assert self.lay_many(store, 1, volume=2_000 + n) == [Verdict.LAID]
            store.merge([bar()], INTERNAL)
        assert self.lay_many(store, 1) == [Verdict.JUDGED]
        assert store.overlays() == {}

    def test_counts_any_minute(self, store: Store, store_client: redis.Redis) -> None:
        self.lay_many(store, 4)
        let_time_pass(store_client, seconds=40)
        self.lay_many(store, 6, volume=3_000)
        let_time_pass(store_client, seconds=18)
        assert self.lay_many(store, 1, volume=4_000) == [Verdict.JUDGED]
        let_time_pass(store_client, seconds=3)
        assert self.lay_many(store, 5, volume=4_000) == [Verdict.LAID] * 4 + [Verdict.JUDGED]

    def test_survives_a_clock_that_is_set_back(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        self.lay_many(store, 10)
        let_time_pass(store_client, seconds=-100)
        store.merge([bar(volume=1_001)], INTERNAL)
        assert self.lay_many(store, 1, volume=3_000) == [Verdict.LAID]

    def test_leaves_what_is_refused_refused(self, store: Store) -> None:
        self.lay_many(store, 10)
        assert lay(store, bar(volume=1)) is Verdict.SMALLER_VOLUME
        assert lay(store, bar(volume=2_009)) is Verdict.UNCHANGED

    def test_holds_for_bars_that_a_second_speaks_for(self, store: Store) -> None:
        self.lay_many(store, 9)

        def say(n: int, volume: int) -> Verdict:
            said, network = [(bar(volume=volume), "64300")], f"10.0.{n}.0/24"
            merged = store.lay(said, actor=f"10.0.{n}.1", late_after=0, network=network)
            return merged.verdicts[0]

        assert [say(n, 3_000) for n in range(3)] == [Verdict.HELD, Verdict.LAID, Verdict.UNCHANGED]
        assert [say(n, 4_000) for n in range(2)] == [Verdict.JUDGED] * 2
        assert store.state().held == 0

    def test_keeps_a_line_a_symbol(self, store: Store, store_client: redis.Redis) -> None:
        reads: Any = store_client
        for _ in range(3):
            self.lay_many(store, 50)
            let_time_pass(store_client, seconds=61)
            store.merge([bar()], INTERNAL)
        assert reads.hlen(f"{ROOT}:laid") == 1
        assert reads.hstrlen(f"{ROOT}:laid", "VCB") < 150


class TestWhatPublicBarsCost:
    """Senders decide how many there are, and every request calls a script."""

    SYMBOLS = [f"S{number:03}" for number in range(50)]

    @pytest.fixture(autouse=True)
    def held(self, store: Store) -> None:
        store.merge([bar(symbol) for symbol in self.SYMBOLS], INTERNAL)
        for n in range(1, 17):
            said = [(bar(symbol, close=64_300 + 400 * n), "64300") for symbol in self.SYMBOLS]
            network = f"10.0.{n}.0/24"
            store.lay(said, actor=f"10.0.{n}.1", late_after=0, network=network)
        assert store.state().held == 50
        assert len(store.public_actors()) == 16

    def scans(self, client: redis.Redis, work: Callable[[], object]) -> int:
        """How often all of them were read meanwhile, overlays and held bars counted each."""
        reads: Any = client
        reads.config_resetstat()
        work()
        return int(reads.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0))

    def test_is_nothing_while_none_is_at_its_end(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        def work() -> None:
            for _ in range(20):
                store.state()
                store.merge([bar("S000", day=THURSDAY)], INTERNAL)

        assert self.scans(store_client, work) == 0
        let_time_pass(store_client, seconds=290)
        assert self.scans(store_client, work) == 0

    def test_is_one_look_at_all_when_the_first_is(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        let_time_pass(store_client, seconds=200)
        again = [(bar(symbol, volume=2_000), "64300") for symbol in self.SYMBOLS[:3]]
        store.lay(again, actor="10.1.0.1", late_after=0, network="10.1.0.0/24")
        let_time_pass(store_client, seconds=101)

        def work() -> None:
            for _ in range(20):
                store.state()

        assert self.scans(store_client, work) == 2
        assert store.state().held == 3
        let_time_pass(store_client, seconds=202)
        assert self.scans(store_client, work) == 2
        assert store.state().held == 0

    def test_is_one_look_a_second_however_they_are_spread(
        self, store: Store, store_client: redis.Redis
    ) -> None:
        """Else whoever has one end each millisecond has them all read with every request."""
        store.withdraw_actors(store.public_actors())
        for symbol in self.SYMBOLS:
            said = [(bar(symbol, volume=2_000), "64300")]
            store.lay(said, actor="10.0.0.1", late_after=0, network="10.0.0.0/24")
            let_time_pass(store_client, seconds=0.01)
        let_time_pass(store_client, seconds=299.9)  # they end from 0.4 s ago to 0.1 s from now

        def work() -> None:
            for _ in range(20):
                store.state()
                let_time_pass(store_client, seconds=0.005)

        of_the_test = self.scans(store_client, lambda: let_time_pass(store_client, seconds=0))
        looks = self.scans(store_client, work) - 20 * of_the_test
        assert looks in (2, 4)  # the second, where that took over a second
        let_time_pass(store_client, seconds=1)
        assert store.state().held == 0

    def test_ends_with_the_day_of_the_market_clock(self, store: Store) -> None:
        store.clock = clock_at(exchange_time(NEXT_MONDAY, 9))
        assert store.state().held == 0


# --- Reading --------------------------------------------------------------------------------------


class TestReading:
    def test_an_empty_store(self, store: Store) -> None:
        state = store.state()
        assert (state.position.revision, state.age, state.ready_epoch) == (0, None, "")
        assert store.symbols() == []
        for read in (store.newest, store.overlays, store.loaded, store.changed):
            assert read() == {}
        assert store.newest(["VCB"]) == store.newest([]) == {}
        assert list(store.series([])) == []
        assert list(store.series(["VCB"])) == [("VCB", [])]
        assert store.status() == store.followed() == {}

    def test_some_symbols_or_all(self, store: Store) -> None:
        store.merge([bar("VCB"), bar("FPT")], INTERNAL)
        lay(store, bar("FPT", volume=2_000))
        assert set(store.newest()) == {"VCB", "FPT"}
        assert set(store.newest(["VCB", "VCB", "SSI"])) == {"VCB"}
        assert set(store.overlays(["VCB", "FPT"])) == {"FPT"}

    def test_series_of_many_symbols_come_back_in_order(self, store: Store) -> None:
        symbols = [f"S{number:03}" for number in range(120)]
        store.merge([bar(symbol) for symbol in symbols], INTERNAL)
        assert [symbol for symbol, _ in store.series(symbols)] == symbols

    def test_the_last_days_of_a_series(self, store: Store) -> None:
        store.merge([bar(day=day) for day in days(5)], INTERNAL)
        [(_, rows)] = store.series(["VCB"], last=2)
        assert rows == [(one.epoch, one.encode()) for one in (bar(day=day) for day in days(2))]

    def test_how_long_ago_a_cycle_was_complete(
        self, store: Store, store_client: redis.Redis, fence: str
    ) -> None:
        assert store.seconds_since_cycle() is None
        store.complete_cycle(fence=fence)
        let_time_pass(store_client, seconds=100)
        assert store.seconds_since_cycle() == pytest.approx(100, abs=2)

    def test_what_the_worker_left(self, store: Store, fence: str) -> None:
        place: dict[str, str] = {"url": "http://127.0.0.1:3000", "position": "ab-1"}
        store.remember_followed(place, fence=fence)
        status: dict[str, Any] = {"requests": 6, "errors": []}
        store.write_status(status, fence=fence)
        assert store.followed() == place
        assert store.status() == status

    def test_what_was_learned_of_each_upstream(self, store: Store, fence: str) -> None:
        assert store.batch_size("a.test") == {}
        store.remember_batch_size("a.test", {"size": 100, "holds": 0}, fence=fence)
        store.remember_batch_size("b.test", {"size": 25, "holds": 1}, fence=fence)
        assert store.batch_size("a.test") == {"size": 100, "holds": 0}
        assert store.batch_size("b.test") == {"size": 25, "holds": 1}

    def test_a_node_has_one_id(self, store: Store, store_client: redis.Redis) -> None:
        first = store.node_id()
        assert store.node_id() == first
        assert first.isalnum()
        store_client.flushdb()
        assert store.node_id() != first
