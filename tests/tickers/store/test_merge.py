"""The merge table: each row as a sentence, then all of them at once against a plain model."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from proxy_site.environment import next_database
from tests.support.bars import (
    FRIDAY,
    MONDAY,
    NEXT_MONDAY,
    THURSDAY,
    TRUST_WINDOW,
    TUESDAY,
    WEDNESDAY,
    a_store,
    bar,
    clock_at,
    dump,
    exchange_time,
    lead,
    let_time_pass,
)
from tests.support.merge_model import MergeModel, weight
from tickers.bar import Bar, epoch_of, number
from tickers.store.records import Change, Position
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, Merged, Store
from tickers.verdict import Authority, Verdict

CORE, FOLLOWED, INTERNAL = Authority.CORE, Authority.FOLLOWED, Authority.INTERNAL
TRUSTED = (CORE, FOLLOWED, INTERNAL)
FROM_OTHERS = (FOLLOWED, INTERNAL)

Send = Callable[..., Verdict]


@pytest.fixture
def send(store: Store, fence: str) -> Send:
    """Merge one bar and say what became of it."""

    def send(sent: Bar, authority: Authority) -> Verdict:
        merged = store.merge([sent], authority, fence=fence if authority is CORE else "")
        return merged.verdicts[0]

    return send


def stored(store: Store, symbol: str = "VCB") -> list[bytes]:
    [(_, rows)] = store.series([symbol])
    return [encoded for _, encoded in rows]


def last_revision(store: Store) -> list[Change]:
    """The entries of the change log's last revision."""
    position = store.state().position
    return store.changes_since(Position(position.epoch, position.revision - 1))[1] or []


def entry(what: str, of: Bar | None = None, *, symbol: str = "VCB") -> tuple[str, str, Any]:
    return (what, of.symbol if of else symbol, of.encode() if of else None)


def logged(store: Store) -> list[tuple[str, str, Any]]:
    return [(change.what, change.symbol, change.bar) for change in last_revision(store)]


class TestCoreOverABarOfTheSameDay:
    @pytest.mark.parametrize("earlier", [CORE, FOLLOWED])
    @pytest.mark.parametrize(
        "fetched",
        [bar(volume=1_001), bar(volume=999), bar(close=64_200), bar(half_width=50)],
        ids=["more volume", "less volume", "another close", "narrower"],
    )
    def test_replaces_it_whenever_it_differs(
        self, store: Store, send: Send, earlier: Authority, fetched: Bar
    ) -> None:
        send(bar(volume=1_000), earlier)
        assert send(fetched, CORE) is Verdict.REPLACED
        assert stored(store) == [fetched.encode()]
        assert store.newest()["VCB"].authority is CORE

    def test_spares_an_internal_bar_of_larger_volume_for_a_minute(
        self, store: Store, store_client: redis.Redis, send: Send, fence: str
    ) -> None:
        internal, fetched = bar(volume=1_001), bar(volume=1_000)
        send(internal, INTERNAL)
        let_time_pass(store_client, seconds=58)
        assert send(fetched, CORE) is Verdict.KEPT
        store.complete_cycle(fence=fence)
        assert stored(store) == [internal.encode()]
        let_time_pass(store_client, seconds=3)
        store.state()
        assert stored(store) == [fetched.encode()]
        assert send(fetched, CORE) is Verdict.UNCHANGED

    def test_replaces_an_internal_bar_of_larger_volume_after_a_minute(
        self, store: Store, store_client: redis.Redis, send: Send
    ) -> None:
        internal, fetched = bar(volume=1_001), bar(volume=1_000)
        send(internal, INTERNAL)
        let_time_pass(store_client, seconds=61)
        assert send(fetched, CORE) is Verdict.REPLACED
        assert stored(store) == [fetched.encode()]

    @pytest.mark.parametrize("volume", [999, 1_000])
    def test_replaces_an_internal_bar_of_no_larger_volume_at_once(
        self, send: Send, volume: int
    ) -> None:
        send(bar(volume=volume, close=64_200), INTERNAL)
        assert send(bar(volume=1_000), CORE) is Verdict.REPLACED

    @pytest.mark.parametrize("earlier", FROM_OTHERS)
    def test_confirms_what_others_said_and_the_log_has_it(
        self, store: Store, send: Send, earlier: Authority
    ) -> None:
        send(bar(), earlier)
        assert store.changed() == {}
        assert send(bar(), CORE) is Verdict.CONFIRMED
        assert store.newest()["VCB"].authority is CORE
        assert logged(store) == [entry(CORE, bar())]
        assert store.changed() == {"VCB": 2}

    @pytest.mark.parametrize("again", TRUSTED)
    def test_repeated_by_anyone_changes_nothing(
        self, store: Store, send: Send, again: Authority
    ) -> None:
        send(bar(), CORE)
        assert send(bar(), again) is Verdict.UNCHANGED
        assert store.newest()["VCB"].authority is CORE
        assert store.state().position.revision == 1

    def test_that_grows_is_logged_as_a_bar(self, store: Store, send: Send) -> None:
        send(bar(volume=1_000), CORE)
        send(bar(volume=1_001), CORE)
        assert logged(store) == [entry(CORE, bar(volume=1_001))]

    @pytest.mark.parametrize(
        "fetched", [bar(volume=999), bar(close=64_200), bar(half_width=99)], ids=str
    )
    def test_that_followers_would_keep_theirs_over_is_logged_as_a_replaced_series(
        self, store: Store, send: Send, fetched: Bar
    ) -> None:
        send(bar(volume=1_000), CORE)
        send(fetched, CORE)
        assert logged(store) == [entry("replaced")]


@pytest.mark.parametrize("authority", FROM_OTHERS)
@pytest.mark.parametrize("earlier", TRUSTED)
class TestOthersOverABarOfTheSameDay:
    @pytest.mark.parametrize(
        "said",
        [bar(volume=1_001, half_width=10), bar(half_width=101), bar(close=64_000, half_width=101)],
        ids=["larger volume", "equal volume and wider", "wider elsewhere"],
    )
    def test_larger_volume_wins_then_the_wider_span(
        self, store: Store, send: Send, earlier: Authority, authority: Authority, said: Bar
    ) -> None:
        send(bar(), earlier)
        assert send(said, authority) is Verdict.REPLACED
        assert stored(store) == [said.encode()]
        assert store.newest()["VCB"].authority is authority
        assert logged(store) == [entry(authority, said)]

    @pytest.mark.parametrize(
        "said",
        [bar(volume=999, half_width=500), bar(half_width=99), bar(close=64_200)],
        ids=["smaller volume", "equal volume and narrower", "as wide with another close"],
    )
    def test_else_the_stored_one_stays(
        self, store: Store, send: Send, earlier: Authority, authority: Authority, said: Bar
    ) -> None:
        send(bar(), earlier)
        assert send(said, authority) is Verdict.KEPT
        assert stored(store) == [bar().encode()]
        assert store.newest()["VCB"].authority is earlier
        assert store.state().position.revision == 1


class TestOlderHistory:
    def test_is_rewritten_by_core_and_logged_as_a_replaced_series(
        self, store: Store, send: Send
    ) -> None:
        send(bar(day=THURSDAY), CORE)
        send(bar(day=FRIDAY), CORE)
        adjusted = bar(day=THURSDAY, close=60_000)
        assert send(adjusted, CORE) is Verdict.REPLACED
        assert stored(store) == [adjusted.encode(), bar().encode()]
        assert logged(store) == [entry("replaced")]
        assert store.changed() == {"VCB": 2}  # peers are sent newest bars only

    @pytest.mark.parametrize("authority", TRUSTED)
    def test_is_completed_by_any_trusted_source(
        self, store: Store, send: Send, authority: Authority
    ) -> None:
        send(bar(day=FRIDAY), FOLLOWED)
        assert send(bar(day=THURSDAY), authority) is Verdict.ADDED
        assert stored(store) == [bar(day=THURSDAY).encode(), bar(day=FRIDAY).encode()]
        assert logged(store) == [entry(authority, bar(day=THURSDAY))]
        assert store.newest()["VCB"].authority is FOLLOWED

    @pytest.mark.parametrize("authority", FROM_OTHERS)
    def test_is_never_rewritten_by_a_bar_from_others(
        self, store: Store, send: Send, authority: Authority
    ) -> None:
        send(bar(day=THURSDAY), CORE)
        send(bar(day=FRIDAY), CORE)
        assert send(bar(day=THURSDAY, volume=9_000), authority) is Verdict.KEPT
        assert stored(store) == [bar(day=THURSDAY).encode(), bar(day=FRIDAY).encode()]
        assert store.state().position.revision == 2

    def test_is_rewritten_when_the_core_network_says_series_replaced(
        self, store: Store, send: Send, fence: str
    ) -> None:
        send(bar(day=THURSDAY), FOLLOWED)
        send(bar(day=FRIDAY), FOLLOWED)
        adjusted = [bar(day=THURSDAY, close=60_000), bar(day=FRIDAY, close=60_000, volume=1)]
        verdict = store.replace_series(
            "VCB",
            adjusted,
            FOLLOWED,
            fence=fence,
            history_start=epoch_of(MONDAY),
            replace_newest=True,
        )
        assert verdict is Verdict.REPLACED
        assert stored(store) == [day.encode() for day in adjusted]
        assert logged(store) == [entry("replaced")]
        assert store.newest()["VCB"].anchor == "60000"

    def test_read_whole_leaves_the_newest_day_to_the_table(
        self, store: Store, send: Send, fence: str
    ) -> None:
        send(bar(day=FRIDAY, volume=2_000), FOLLOWED)
        verdict = store.replace_series(
            "VCB",
            [bar(day=THURSDAY), bar(day=FRIDAY, volume=1_000)],
            FOLLOWED,
            fence=fence,
            history_start=epoch_of(MONDAY),
        )
        assert verdict is Verdict.REPLACED
        assert stored(store) == [bar(day=THURSDAY).encode(), bar(volume=2_000).encode()]


class TestUnknownSymbol:
    @pytest.mark.parametrize("authority", TRUSTED)
    def test_is_added(self, store: Store, send: Send, authority: Authority) -> None:
        assert send(bar(), authority) is Verdict.ADDED
        assert stored(store) == [bar().encode()]
        assert logged(store) == [entry(authority, bar())]
        assert store.loaded() == {}  # one bar is no history

    @pytest.mark.parametrize("authority", FROM_OTHERS)
    def test_of_others_is_added_up_to_the_most_symbols(
        self, store_client: redis.Redis, authority: Authority
    ) -> None:
        store = a_store(store_client, max_symbols=2)
        bars = [bar("VCB"), bar("FPT"), bar("VND"), bar("VCB", volume=2_000)]
        assert store.merge(bars, authority).verdicts == [
            Verdict.ADDED,
            Verdict.ADDED,
            Verdict.FULL,
            Verdict.REPLACED,
        ]
        assert store.symbols() == ["FPT", "VCB"]

    def test_of_core_is_added_beyond_it(self, store_client: redis.Redis) -> None:
        store = a_store(store_client, max_symbols=1)
        bars = [bar("VCB"), bar("FPT")]
        assert store.merge(bars, CORE, fence=lead(store)).verdicts == [Verdict.ADDED] * 2


class TestDays:
    @pytest.mark.parametrize("authority", TRUSTED)
    def test_nobody_stores_a_bar_of_a_day_after_the_market_clocks(
        self, store: Store, send: Send, authority: Authority
    ) -> None:
        send(bar(), CORE)
        assert send(bar(day=FRIDAY + dt.timedelta(days=1)), authority) is Verdict.FUTURE
        assert stored(store) == [bar().encode()]

    @pytest.mark.parametrize("authority", FROM_OTHERS)
    @pytest.mark.parametrize("stored_day", [None, TUESDAY, WEDNESDAY, FRIDAY])
    @pytest.mark.parametrize(
        ("day", "too_old"),
        [
            (dt.date(1, 1, 1), True),
            (dt.date(1970, 1, 1), True),
            (TUESDAY, True),
            (WEDNESDAY, False),
            (THURSDAY, False),
        ],
    )
    def test_of_others_begin_with_the_history(
        self,
        store_client: redis.Redis,
        authority: Authority,
        stored_day: dt.date | None,
        day: dt.date,
        too_old: bool,
    ) -> None:
        store = a_store(store_client, history_start=WEDNESDAY)
        if stored_day:
            store.merge([bar(day=stored_day)], CORE, fence=lead(store))
        store.state()
        before = dump(store_client)
        [verdict] = store.merge([bar(day=day, volume=9_000)], authority).verdicts
        assert (verdict is Verdict.TOO_OLD) is too_old
        assert (dump(store_client) == before) is too_old

    def test_of_core_are_kept_before_it(self, store_client: redis.Redis) -> None:
        """Its overlap may reach back behind the history; whole series are cut by who asks."""
        store = a_store(store_client, history_start=WEDNESDAY)
        merged = store.merge([bar(day=TUESDAY)], CORE, fence=lead(store))
        assert merged.verdicts == [Verdict.ADDED]

    def test_the_day_is_the_exchanges_not_that_of_utc(self, store_client: redis.Redis) -> None:
        at_one = exchange_time(FRIDAY, 1)  # Thursday, 18:00 in UTC
        store = a_store(store_client, at=at_one)
        assert store.merge([bar(day=FRIDAY)], INTERNAL).verdicts == [Verdict.ADDED]

    @pytest.mark.parametrize("authority", TRUSTED)
    def test_a_new_day_is_added_however_small_its_volume(
        self, store: Store, send: Send, authority: Authority
    ) -> None:
        send(bar(day=THURSDAY, volume=9_000), INTERNAL)
        assert send(bar(day=FRIDAY, volume=1), authority) is Verdict.ADDED
        assert stored(store) == [bar(day=THURSDAY, volume=9_000).encode(), bar(volume=1).encode()]


class TestPublicOverATrustedBar:
    def lay(self, store: Store, said: Bar, *, anchor: str = "64300") -> Merged:
        return store.lay([(said, anchor)], actor="203.0.113.9", late_after=0)

    @pytest.mark.parametrize("volume", [1_000, 1_001])
    def test_is_laid_over_it_and_destroys_nothing(
        self, store: Store, send: Send, volume: int
    ) -> None:
        send(bar(volume=1_000), CORE)
        said = bar(close=64_400, volume=volume)
        assert self.lay(store, said).verdicts == [Verdict.LAID]
        assert stored(store) == [bar(volume=1_000).encode()]
        assert store.newest()["VCB"].authority is CORE
        assert store.newest()["VCB"].anchor == "64300"
        assert store.overlays()["VCB"].json == said.encode()
        assert logged(store) == [entry("PUBLIC", said)]

    def test_of_a_smaller_volume_is_refused(self, store: Store, send: Send) -> None:
        send(bar(volume=1_000), CORE)
        said = bar(close=64_400, volume=999)
        assert self.lay(store, said).verdicts == [Verdict.SMALLER_VOLUME]
        assert store.overlays() == {}

    def test_never_enters_by_merge(self, store: Store) -> None:
        with pytest.raises(ValueError, match="use lay"):
            store.merge([bar()], Authority.PUBLIC)

    def test_of_older_history_is_refused(self, store: Store, send: Send) -> None:
        send(bar(day=THURSDAY), CORE)
        said = bar(day=THURSDAY, volume=2_000)
        assert self.lay(store, said).verdicts == [Verdict.OTHER_DAY]
        assert stored(store) == [bar(day=THURSDAY).encode()]

    def test_of_an_unknown_symbol_is_refused(self, store: Store, send: Send) -> None:
        assert self.lay(store, bar()).verdicts == [Verdict.UNKNOWN]
        assert store.symbols() == []


# --- Any order ------------------------------------------------------------------------------------


def bars_of(symbols: list[str], days: list[dt.date]) -> st.SearchStrategy[Bar]:
    """Few values, so that volumes are often equal and bars often repeated."""
    return st.builds(
        bar,
        st.sampled_from(symbols),
        st.sampled_from(days),
        close=st.sampled_from([64_300, 64_350.5]),
        half_width=st.sampled_from([0, 50, 100.25]),
        volume=st.integers(0, 3),
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), said=st.lists(bars_of(["VCB"], [FRIDAY]), min_size=1, unique_by=weight))
def test_messages_of_a_day_end_in_the_same_bar_in_any_order_however_often(
    store_client: redis.Redis, data: st.DataObject, said: list[Bar]
) -> None:
    store_client.flushdb()
    store = a_store(store_client)
    repeats = data.draw(st.lists(st.sampled_from(said), max_size=4))
    for message in data.draw(st.permutations(said + repeats)):
        store.merge([message], data.draw(st.sampled_from(FROM_OTHERS)))
    assert stored(store) == [max(said, key=weight).encode()]


# --- All rows at once -----------------------------------------------------------------------------

# Few symbols and days, so that steps often meet.
SYMBOLS = ["VCB", "FPT", "VND"]
DAYS = [MONDAY, TUESDAY, THURSDAY, FRIDAY, NEXT_MONDAY]
ACTORS = ["203.0.113.9", "2001:db8:1:2::/64"]
MOST_SYMBOLS = 2
# On Monday before nine the date is Monday's while the current trading day is still Friday.
MOMENTS = [exchange_time(FRIDAY, 10), exchange_time(NEXT_MONDAY, 8), exchange_time(NEXT_MONDAY, 10)]

# Sums of these stay seconds away from a minute and from the trust window.
PAUSES = [28, 69]

bars = bars_of(SYMBOLS, DAYS)
todays = bars_of(SYMBOLS[:2], [FRIDAY])


class Replica:
    """The market as the change log tells it; it looks at the store for replaced series only."""

    def __init__(self) -> None:
        self.series: dict[str, dict[int, bytes]] = {}
        self.overlays: dict[str, bytes] = {}

    def apply(self, changes: list[Change], store: Store) -> None:
        for change in changes:
            if change.what == "replaced":
                [(_, rows)] = store.series([change.symbol])
                self.series[change.symbol] = dict(rows)
            elif change.what == "withdrawn":
                del self.overlays[change.symbol]
            elif change.what == "removed":
                del self.series[change.symbol]
            elif change.what == "PUBLIC":
                assert change.bar is not None
                self.overlays[change.symbol] = change.bar
            else:
                assert change.bar is not None
                self.series.setdefault(change.symbol, {})[day_in(change.bar)] = change.bar


def day_in(encoded: bytes) -> int:
    text = encoded.split(b'"time":"')[1][:10].decode()
    return epoch_of(dt.date.fromisoformat(text))


class MergeMachine(RuleBasedStateMachine):
    """Drives the store and the model with the same steps, and compares all they hold after each."""

    def __init__(self, client: redis.Redis, followers_client: redis.Redis) -> None:
        super().__init__()
        self.client = client
        client.flushall()
        self.store = a_store(client, max_symbols=MOST_SYMBOLS, history_start=TUESDAY)
        self.fence = lead(self.store)
        self.moment = 0
        self.model = MergeModel(FRIDAY, FRIDAY, MOST_SYMBOLS, TRUST_WINDOW, TUESDAY)
        self.replica = Replica()
        self.follower = a_store(followers_client)
        self.followers_fence = lead(self.follower)
        self.followed = Position(self.store.state().position.epoch, 0)
        self.before: tuple[int, object] = (0, self.market())

    @initialize(said=st.lists(bars, max_size=3))
    def begins_with_some_market(self, said: list[Bar]) -> None:
        self.merges(said=said, authority=CORE)

    # --- Steps ----------------------------------------------------------------------------------

    @rule(said=st.lists(bars | todays, min_size=1, max_size=4), authority=st.sampled_from(TRUSTED))
    def merges(self, said: list[Bar], authority: Authority) -> None:
        fence = self.fence if authority is CORE else ""
        verdicts = self.store.merge(said, authority, fence=fence).verdicts
        expected = self.model.merge(said, authority)
        # An empty merge doesn't reach the store, so nothing expires.
        assert verdicts == expected or not said

    @rule(
        said=st.lists(bars, max_size=5, unique_by=lambda bar: bar.day),
        symbol=st.sampled_from(SYMBOLS),
        authority=st.sampled_from([CORE, FOLLOWED]),
        history_start=st.sampled_from([TUESDAY, THURSDAY]),
        keeps=st.booleans(),
        replace_newest=st.booleans(),
    )
    def replaces_a_series(
        self,
        said: list[Bar],
        symbol: str,
        authority: Authority,
        history_start: dt.date,
        keeps: bool,
        replace_newest: bool,
    ) -> None:
        """``keeps``: an answer that has every stored day, some of them as they are stored."""
        by_day = dict(self.model.series.get(symbol, {})) if keeps else {}
        by_day |= {
            b.day: bar(symbol, b.day, close=b.close, half_width=b.high - b.close, volume=b.volume)
            for b in said
        }
        series = [by_day[day] for day in sorted(by_day)]
        verdict = self.store.replace_series(
            symbol,
            series,
            authority,
            fence=self.fence,
            history_start=epoch_of(history_start),
            replace_newest=replace_newest,
        )
        assert verdict is self.model.replace_series(
            symbol, series, authority, history_start=history_start, replace_newest=replace_newest
        )

    @rule(
        said=st.lists(todays | bars, min_size=1, max_size=3),
        actor=st.sampled_from(ACTORS),
        anchored=st.sampled_from([True, True, True, False]),
        serve=st.sampled_from([True, True, True, False]),
    )
    def lays(self, said: list[Bar], actor: str, anchored: bool, serve: bool) -> None:
        judged = []
        for one in said:
            newest = self.model.newest.get(one.symbol)
            judged.append((one, number(newest.bar.close) if newest and anchored else "1"))
        merged = self.store.lay(judged, actor=actor, late_after=0 if serve else None)
        assert merged.verdicts == self.model.lay(judged, actor=actor, serve=serve)

    @rule(actors=st.sets(st.sampled_from(ACTORS)))
    def bans(self, actors: set[str]) -> None:
        assert self.store.withdraw_actors(actors) == self.model.withdraw_actors(actors)

    @rule(ends_overlays=st.booleans())
    def completes_a_cycle(self, ends_overlays: bool) -> None:
        self.store.complete_cycle(fence=self.fence, ends_overlays=ends_overlays)
        self.model.complete_cycle(ends_overlays=ends_overlays)

    @rule(symbol=st.sampled_from(SYMBOLS))
    def forgets(self, symbol: str) -> None:
        assert self.store.forget(symbol) is self.model.forget(symbol)

    @rule(symbols=st.sets(st.sampled_from(SYMBOLS)))
    def disputes_what_an_answer_lacks(self, symbols: set[str]) -> None:
        assert self.store.dispute_absent(symbols, self.fence) == self.model.dispute_absent(symbols)

    @rule()
    def looks(self) -> None:
        self.model.look()
        state = self.store.state()
        assert state.position.revision == self.model.revision
        assert state.overlays == len(self.model.overlays)

    @rule(seconds=st.sampled_from(PAUSES))
    def time_passes(self, seconds: int) -> None:
        let_time_pass(self.client, seconds=seconds)
        self.model.now += seconds
        self.model.entries = []

    @rule()
    def the_market_clock_moves_on(self) -> None:
        self.moment = min(self.moment + 1, len(MOMENTS) - 1)
        clock = clock_at(MOMENTS[self.moment])
        self.store.clock = self.follower.clock = clock
        self.model.today, self.model.trading_day = clock.today(), clock.trading_day()
        self.model.entries = []

    @rule()
    def a_follower_catches_up(self) -> None:
        """By the change log, conflated, as FOLLOWED: it ends with the same trusted market."""
        self.model.look()  # who asks what changed ends the overlays whose time is over
        _, changes = self.store.changes_since(self.followed)
        assert changes is not None
        for symbol in {change.symbol for change in changes if change.what == "removed"}:
            self.follower.forget(symbol)
        changes = [c for c in changes if c.symbol in self.model.series]
        replaced = {change.symbol for change in changes if change.what in ("replaced", "removed")}
        latest: dict[tuple[str, int], Bar] = {}
        for change in changes:
            if change.what in TRUSTED and change.bar is not None and change.symbol not in replaced:
                day = day_in(change.bar)
                latest[change.symbol, day] = self.as_bar(change.symbol, day)
        for symbol in replaced:
            self.follower.replace_series(
                symbol,
                [one for _, one in sorted(self.model.series[symbol].items())],
                FOLLOWED,
                fence=self.followers_fence,
                # Whether too many days are lost isn't the question here.
                history_start=epoch_of(NEXT_MONDAY) + 1,
                replace_newest=True,
            )
        self.follower.merge(list(latest.values()), FOLLOWED)
        self.followed = Position(self.followed.epoch, self.model.revision)
        assert dict(self.follower.series(self.follower.symbols())) == self.model.market()

    def as_bar(self, symbol: str, day: int) -> Bar:
        [found] = [one for one in self.model.series[symbol].values() if one.epoch == day]
        return found

    # --- What must hold -------------------------------------------------------------------------

    def market(self) -> tuple[object, ...]:
        """Everything that counts as the market: what a reader or a follower could tell apart."""
        series = dict(self.store.series(self.store.symbols()))
        authorities = {s: newest.authority for s, newest in self.store.newest().items()}
        overlays = {s: (o.actors, o.json) for s, o in self.store.overlays().items()}
        return series, authorities, overlays

    @invariant()
    def store_and_model_agree(self) -> None:
        model, newest = self.model, self.store.newest()
        assert dict(self.store.series(self.store.symbols())) == model.market()
        assert {s: (n.json, n.authority, n.anchor, n.volume) for s, n in newest.items()} == {
            s: (n.bar.encode(), n.authority, number(n.bar.close), n.bar.volume)
            for s, n in model.newest.items()
        }
        assert {s: (o.json, o.actors, o.day) for s, o in self.store.overlays().items()} == {
            s: (laid.bar.encode(), (laid.actor,), laid.bar.epoch)
            for s, laid in model.overlays.items()
        }
        assert self.store.changed() == model.changed
        assert self.store.loaded() == {s: epoch_of(day) for s, day in model.loaded.items()}
        told = self.store.series_with_revisions(self.store.symbols())
        assert {symbol: revisions for symbol, _, revisions in told} == model.revisions
        assert self.store.removed() == model.removed
        reads: Any = self.client
        foreign = {
            s: {
                dt.date.fromisoformat(day.decode()) for day in reads.smembers(f"{ROOT}:foreign:{s}")
            }
            for s in SYMBOLS
        }
        assert foreign == {s: model.foreign.get(s, set()) for s in SYMBOLS}
        disputed = {
            s.decode(): int(text.split()[0])
            for s, text in reads.hgetall(f"{ROOT}:disputed").items()
        }
        assert disputed == {s: epoch_of(dispute.day) for s, dispute in model.disputes.items()}

    @invariant()
    def the_revision_and_the_log_tell_what_changed(self) -> None:
        reads: Any = self.client  # state() would end overlays
        revision, market = int(reads.get(f"{ROOT}:revision") or 0), self.market()
        before, market_before = self.before
        assert revision == self.model.revision
        assert revision - before in (0, 1)
        if revision == before:
            assert market == market_before
        # Not changes_since() either.
        logged = reads.xrange(f"{ROOT}:changes", min=f"{before + 1}-0")
        changes = [Change.parse(entry_id, fields) for entry_id, fields in logged]
        assert {change.revision for change in changes} == set(range(before + 1, revision + 1))
        if revision > before:
            written = [(c.what, c.symbol, c.bar or b"") for c in changes]
            assert sorted(written) == sorted((str(w), s, b) for w, s, b in self.model.entries)
        self.replica.apply(changes, self.store)
        series = {s: dict(rows) for s, rows in self.model.market().items()}
        assert self.replica.series == series
        assert self.replica.overlays == {
            s: laid.bar.encode() for s, laid in self.model.overlays.items()
        }
        self.before = revision, market

    def teardown(self) -> None:
        self.a_follower_catches_up()


@pytest.fixture
def followers_client(clean_server: redis.Redis) -> Iterator[redis.Redis]:
    with connect(next_database(django_settings.REDIS_URL), timeout=5) as client:
        yield client


@pytest.mark.timeout(400)  # a failure is shrunk to the shortest story, which takes minutes
def test_the_store_does_what_the_model_does(
    store_client: redis.Redis, followers_client: redis.Redis
) -> None:
    class Machine(MergeMachine):
        def __init__(self) -> None:
            super().__init__(store_client, followers_client)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=120,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
