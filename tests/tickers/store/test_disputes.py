"""Disputes: a peer's bar that stands over what our own fetch, or a core network, says of a day.
Also what can't be, and the days that only peers wrote."""

import datetime as dt
from typing import Any

import pytest
import redis

from tests.support.bars import (
    FRIDAY,
    MONDAY,
    NEXT_MONDAY,
    THURSDAY,
    a_store,
    bar,
    exchange_time,
    lead,
    let_time_pass,
    trading_days_before,
)
from tickers.bar import MAX_VOLUME, Bar, epoch_of
from tickers.store.records import Position
from tickers.store.revisions import Revisions
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority, Verdict

CORE, FOLLOWED, INTERNAL = Authority.CORE, Authority.FOLLOWED, Authority.INTERNAL
OURS = (CORE, FOLLOWED)
PEER, OTHER = "198.51.100.7", "2001:db8:1:2::/64"

TRUTH = bar(volume=1_000)
LIE = bar(close=70_000, volume=1_001)


class Node:
    """A store, and who speaks to it."""

    def __init__(self, client: redis.Redis, store: Store) -> None:
        self.client, self.store = client, store
        self.fence = lead(store)

    def say(self, said: Bar, authority: Authority, peer: str = PEER) -> Verdict:
        fence = self.fence if authority is CORE else ""
        peer = peer if authority is INTERNAL else ""
        return self.store.merge([said], authority, fence=fence, peer=peer).verdicts[0]

    def later(self, seconds: float) -> None:
        """Let time pass, in which our source completes cycles that bring nothing new."""
        self.let_source_be_silent(seconds)
        self.store.complete_cycle(fence=self.fence)

    def let_source_be_silent(self, seconds: float) -> None:
        let_time_pass(self.client, seconds=seconds)

    def served(self, symbol: str = "VCB") -> list[bytes]:
        """As whoever looks now finds it."""
        self.store.state()
        [(_, rows)] = self.store.series([symbol])
        return [encoded for _, encoded in rows]

    def load(self, bars: list[Bar], authority: Authority = CORE, **options: Any) -> Verdict:
        return self.store.replace_series(
            "VCB", bars, authority, fence=self.fence, history_start=epoch_of(MONDAY), **options
        )

    def foreign(self, symbol: str = "VCB") -> set[str]:
        reads: Any = self.client
        return {day.decode() for day in reads.smembers(f"{ROOT}:foreign:{symbol}")}


@pytest.fixture
def node(store_client: redis.Redis) -> Node:
    return Node(store_client, a_store(store_client))


@pytest.mark.parametrize("ours", OURS)
class TestADisplacedBar:
    def test_returns_after_a_minute_with_no_new_message(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        assert node.say(LIE, INTERNAL) is Verdict.REPLACED
        node.later(58)
        assert node.served() == [LIE.encode()]
        node.later(3)
        assert node.served() == [TRUTH.encode()]
        assert node.store.newest()["VCB"].authority is ours

    def test_returns_a_minute_after_the_first_of_lies_that_come_with_one_share_more(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        served = []
        for second in range(0, 150, 25):
            node.say(bar(close=70_000, volume=1_001 + second), INTERNAL)
            served.append(node.served() != [TRUTH.encode()])
            node.later(25)
        assert served == [True, True, True, False, False, False]

    def test_keeps_peers_out_of_that_day_until_our_source_reaches_the_lie(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(bar(close=70_000, volume=1_500), INTERNAL)
        node.later(61)
        assert node.say(bar(volume=9_000), INTERNAL) is Verdict.DISPUTED
        assert node.say(bar("FPT"), INTERNAL) is Verdict.ADDED
        node.say(bar(volume=1_499), ours)
        assert node.say(bar(volume=9_000), INTERNAL, OTHER) is Verdict.DISPUTED
        node.say(bar(volume=1_500), ours)
        assert node.say(bar(volume=1_600), INTERNAL) is Verdict.REPLACED

    def test_keeps_peers_out_of_no_other_day(
        self, store_client: redis.Redis, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        node.later(61)
        node.store.clock = a_store(store_client, at=exchange_time(NEXT_MONDAY, 10)).clock
        assert node.say(bar(day=NEXT_MONDAY, volume=1), INTERNAL) is Verdict.ADDED
        assert node.served()[0] == TRUTH.encode()

    def test_stays_displaced_while_our_source_is_silent(self, node: Node, ours: Authority) -> None:
        """A node that has lost its upstream lives on what its peers send."""
        node.say(TRUTH, ours)
        node.later(0)
        for volume in range(2_000, 12_000, 1_000):
            assert node.say(bar(volume=volume), INTERNAL) is Verdict.REPLACED
            node.let_source_be_silent(30)
            assert node.served() == [bar(volume=volume).encode()]
        assert node.store.counted_against() == {}

    def test_returns_when_our_source_speaks_again_and_still_contradicts(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.later(0)
        node.say(LIE, INTERNAL)
        node.let_source_be_silent(600)
        assert node.served() == [LIE.encode()]
        node.later(0)
        assert node.served() == [TRUTH.encode()]

    def test_keeps_no_peer_out_while_our_source_is_silent(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(bar(close=70_000, volume=1_500), INTERNAL)
        node.later(61)
        assert node.say(bar(volume=9_000), INTERNAL) is Verdict.DISPUTED
        node.let_source_be_silent(61)
        assert node.say(bar(volume=9_000), INTERNAL) is Verdict.REPLACED

    def test_returns_as_our_source_last_said_it(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        node.say(bar(close=70_000, volume=2_000), INTERNAL)
        node.later(30)
        assert node.say(bar(close=64_350, volume=1_200), ours) is Verdict.KEPT
        node.later(31)
        assert node.served() == [bar(close=64_350, volume=1_200).encode()]

    def test_is_over_when_our_source_reaches_the_volume(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        node.say(bar(close=64_350, volume=1_500), INTERNAL)
        node.later(30)
        assert node.say(bar(close=64_400, volume=1_501), ours) is Verdict.REPLACED
        node.later(31)
        assert node.served() == [bar(close=64_400, volume=1_501).encode()]
        assert node.say(bar(volume=1_600), INTERNAL) is Verdict.REPLACED
        assert node.store.counted_against() == {}

    def test_is_over_when_our_source_says_the_same(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        assert node.say(LIE, ours) is Verdict.CONFIRMED
        node.later(61)
        assert node.served() == [LIE.encode()]
        assert node.store.counted_against() == {}

    def test_of_the_largest_volume_there_is_held_for_a_minute_and_no_day(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(bar(volume=MAX_VOLUME // 60), ours)
        node.say(bar(close=70_000, volume=MAX_VOLUME - 1), INTERNAL)
        node.later(61)
        assert node.served() == [bar(volume=MAX_VOLUME // 60).encode()]
        assert node.say(bar(volume=MAX_VOLUME - 1), INTERNAL) is Verdict.DISPUTED
        assert node.say(bar(volume=MAX_VOLUME // 60 + 1), ours) is Verdict.REPLACED

    def test_that_came_after_a_peers_is_displaced_as_well(
        self, node: Node, ours: Authority
    ) -> None:
        """The minute is that of the peer's bar."""
        node.say(LIE, INTERNAL)
        node.later(40)
        assert node.say(TRUTH, ours) is Verdict.KEPT
        node.say(bar(close=70_000, volume=1_002), INTERNAL)
        node.later(21)
        assert node.served() == [TRUTH.encode()]

    def test_takes_the_place_of_a_peers_that_is_older_than_a_minute(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(LIE, INTERNAL)
        node.later(61)
        assert node.say(TRUTH, ours) is Verdict.REPLACED
        assert node.say(LIE, INTERNAL) is Verdict.DISPUTED
        assert node.store.counted_against() == {PEER: {"contradicted": 1}}

    def test_that_was_as_large_and_narrower_returns_too(self, node: Node, ours: Authority) -> None:
        node.say(bar(half_width=100), ours)
        node.say(bar(half_width=5_000), INTERNAL)
        node.later(61)
        assert node.served() == [bar(half_width=100).encode()]
        node.say(bar(half_width=100), ours)
        assert node.say(bar(half_width=5_000), INTERNAL) is Verdict.DISPUTED

    def test_returns_when_a_new_day_begins(
        self, store_client: redis.Redis, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        node.store.clock = a_store(store_client, at=exchange_time(NEXT_MONDAY, 10)).clock
        node.say(bar(day=NEXT_MONDAY), INTERNAL)
        assert node.served() == [TRUTH.encode(), bar(day=NEXT_MONDAY).encode()]

    def test_returns_by_an_entry_that_has_followers_read_the_series(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        node.later(61)
        position = Position(node.store.state().position.epoch, 2)
        state, changes = node.store.changes_since(position)
        assert state.position.revision == 3
        assert [(change.what, change.symbol) for change in changes or ()] == [("replaced", "VCB")]
        assert node.store.changed() == ({"VCB": 3} if ours is CORE else {})

    def test_returns_to_a_merge_of_others_that_looks_first(
        self, node: Node, ours: Authority
    ) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        node.later(61)
        node.say(bar("FPT"), INTERNAL)
        [(_, rows)] = node.store.series(["VCB"])
        assert [encoded for _, encoded in rows] == [TRUTH.encode()]

    def test_returns_as_a_change_of_its_history_when_the_first_look_is_a_refused_series(
        self, node: Node, ours: Authority
    ) -> None:
        node.load([bar(day=day) for day in (MONDAY, THURSDAY)])
        truth, lie = bar("FPT", volume=1_000), bar("FPT", close=70_000, volume=1_001)
        node.say(truth, ours)
        node.say(lie, INTERNAL)
        node.later(61)
        assert node.load([]) is Verdict.FUTURE
        [(_, rows, revisions)] = node.store.series_with_revisions(["FPT"])
        assert [encoded for _, encoded in rows] == [truth.encode()]
        reached = node.store.state().position.revision
        assert revisions == Revisions(reached, [])

    def test_ends_what_was_laid_over_the_lie(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        node.say(LIE, INTERNAL)
        over = bar(close=70_100, volume=2_000)
        merged = node.store.lay([(over, "70000")], actor="203.0.113.9", late_after=0)
        assert merged.verdicts == [Verdict.LAID]
        node.later(61)
        node.store.state()
        assert node.store.overlays() == {}

    def test_names_the_peer_whose_bar_stood_over_it(self, node: Node, ours: Authority) -> None:
        node.say(TRUTH, ours)
        node.say(TRUTH, INTERNAL, OTHER)
        node.say(LIE, INTERNAL, PEER)
        assert node.store.counted_against() == {}
        node.later(61)
        node.store.state()
        assert node.store.counted_against() == {PEER: {"contradicted": 1}}

    def test_returns_in_a_series_that_is_read_whole(self, node: Node, ours: Authority) -> None:
        node.load([bar(day=THURSDAY), TRUTH], ours)
        node.say(LIE, INTERNAL)
        node.load([bar(day=THURSDAY, close=64_200), bar(volume=900)], ours)
        assert node.served() == [bar(day=THURSDAY, close=64_200).encode(), LIE.encode()]
        node.later(61)
        returned = bar(volume=900) if ours is CORE else TRUTH
        assert node.served() == [bar(day=THURSDAY, close=64_200).encode(), returned.encode()]


def test_looking_costs_no_more_while_a_dispute_is_open(node: Node) -> None:
    node.say(TRUTH, CORE)
    node.store.state()

    def a_look() -> dict[str, int]:
        reads: Any = node.client
        reads.config_resetstat()
        node.store.state()
        return {name: told["calls"] for name, told in reads.info("commandstats").items()}

    quiet = a_look()
    node.say(LIE, INTERNAL)
    assert a_look() == quiet


class TestABarThatOurAnswerLacks:
    """Most symbols have one of today, and the worker says which don't."""

    def test_goes_a_minute_after_a_peer_said_it(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), CORE)
        node.say(LIE, INTERNAL)
        assert node.store.dispute_absent(["VCB"], node.fence) == 1
        assert node.served() == [bar(day=THURSDAY).encode(), LIE.encode()]
        node.later(61)
        assert node.served() == [bar(day=THURSDAY).encode()]
        assert node.store.newest()["VCB"].authority is CORE
        assert node.store.newest()["VCB"].day == epoch_of(THURSDAY)
        assert node.store.newest()["VCB"].volume == 1_000
        assert node.foreign() == set()
        assert node.say(LIE, INTERNAL) is Verdict.DISPUTED
        assert node.store.counted_against() == {PEER: {"contradicted": 1}}

    def test_stays_when_our_fetch_has_it_by_then(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), CORE)
        node.say(LIE, INTERNAL)
        node.store.dispute_absent(["VCB"], node.fence)
        assert node.say(bar(volume=2_000), CORE) is Verdict.REPLACED
        node.later(61)
        assert node.served() == [bar(day=THURSDAY).encode(), bar(volume=2_000).encode()]

    def test_goes_with_its_symbol_when_there_is_no_other(self, node: Node) -> None:
        node.say(LIE, INTERNAL)
        node.store.dispute_absent(["VCB"], node.fence)
        node.later(61)
        node.store.state()
        assert node.store.symbols() == []
        assert node.say(LIE, INTERNAL) is Verdict.DISPUTED
        assert node.say(TRUTH, CORE) is Verdict.ADDED

    @pytest.mark.parametrize("authority", OURS)
    def test_of_our_own_is_not_disputed(self, node: Node, authority: Authority) -> None:
        node.say(TRUTH, authority)
        assert node.store.dispute_absent(["VCB", "NONE"], node.fence) == 0

    def test_of_another_day_is_not_disputed(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), INTERNAL)
        assert node.store.dispute_absent(["VCB"], node.fence) == 0

    def test_goes_at_a_follower_too(self, node: Node, store_client: redis.Redis) -> None:
        """It was followed when it stood; the core network's 'replaced' takes it away."""
        node.say(bar(day=THURSDAY), FOLLOWED)
        node.say(LIE, FOLLOWED)
        node.load([bar(day=THURSDAY)], FOLLOWED, replace_newest=True)
        assert node.served() == [bar(day=THURSDAY).encode()]


class TestWhatCantBe:
    def history(self, node: Node, days: int, volume: int = 1_000) -> None:
        """So many trading days before Friday."""
        dates = trading_days_before(FRIDAY, days)
        node.say(bar(day=dates[0], volume=volume), CORE)
        for date in dates[1:]:
            node.say(bar(day=date, volume=volume), CORE)

    @pytest.mark.parametrize("times", [10, 0.1, 9.99, 0.101])
    def test_a_price_within_ten_times_the_reference_is_believed(
        self, node: Node, times: float
    ) -> None:
        node.say(bar(day=THURSDAY), CORE)
        assert node.say(bar(close=64_300 * times, half_width=0), INTERNAL) is Verdict.ADDED

    @pytest.mark.parametrize(
        "said",
        [
            bar(close=643_001, half_width=0),
            bar(close=6_429, half_width=0),
            Bar("VCB", FRIDAY, 643_001, 64_400, 64_200, 64_300, 1_000),
            Bar("VCB", FRIDAY, 64_300, 9e11, 64_200, 64_300, 1_000),
            Bar("VCB", FRIDAY, 64_300, 64_400, 1, 64_300, 1_000),
        ],
        ids=["all too high", "all too low", "open", "high", "low"],
    )
    @pytest.mark.parametrize("has_todays", [False, True])
    def test_a_price_beyond_it_is_refused_and_counted(
        self, node: Node, said: Bar, has_todays: bool
    ) -> None:
        node.say(bar(day=THURSDAY), CORE)
        if has_todays:
            node.say(bar(volume=500), CORE)
        before = node.served()
        assert node.say(said, INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        assert node.served() == before
        assert node.store.counted_against() == {PEER: {"impossible": 1}}

    def test_a_late_bar_is_refused_as_well(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), CORE)
        node.say(bar(volume=500), CORE)
        said = bar(close=643_001, volume=400)
        assert node.say(said, INTERNAL) is Verdict.IMPOSSIBLE_PRICE

    def test_the_reference_moves_with_a_split(self, node: Node) -> None:
        node.load([bar(day=THURSDAY, close=64_300)])
        assert node.say(bar(close=6_400, volume=1), INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        node.say(bar(close=7_000, volume=2), INTERNAL)
        assert node.say(bar(close=6_400, volume=3), INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        node.load([bar(day=THURSDAY, close=6_430)])
        assert node.say(bar(close=6_400, volume=3), INTERNAL) is Verdict.REPLACED

    def test_the_reference_is_no_peers_bar_or_a_lie_would_walk_it_away(self, node: Node) -> None:
        node.say(bar(day=MONDAY), CORE)
        node.say(bar(day=THURSDAY, close=9 * 64_300), INTERNAL)
        assert node.say(bar(close=20 * 64_300), INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        assert node.say(bar(close=9 * 64_300), INTERNAL) is Verdict.ADDED
        larger = bar(close=20 * 64_300, volume=2_000)
        assert node.say(larger, INTERNAL) is Verdict.IMPOSSIBLE_PRICE

    def test_without_a_reference_the_last_close_is_one(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), INTERNAL)
        assert node.say(bar(close=643_001), INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        assert node.say(bar("NEW", close=9e11, half_width=0), INTERNAL) is Verdict.ADDED

    def test_a_missing_day_of_history_is_judged_by_the_day_before_it(self, node: Node) -> None:
        node.say(bar(day=MONDAY, close=1_000), CORE)
        node.say(bar(day=FRIDAY, close=64_300), CORE)
        assert node.say(bar(day=THURSDAY, close=10_300), INTERNAL) is Verdict.IMPOSSIBLE_PRICE
        assert node.say(bar(day=THURSDAY, close=9_000), INTERNAL) is Verdict.ADDED

    def test_a_volume_over_fifty_times_the_largest_of_sixty_days_is_refused(
        self, node: Node
    ) -> None:
        self.history(node, days=20)
        assert node.say(bar(volume=50_001), INTERNAL) is Verdict.IMPOSSIBLE_VOLUME
        assert node.say(bar(volume=50_000), INTERNAL) is Verdict.ADDED
        assert node.say(bar(volume=2_500_000), INTERNAL) is Verdict.IMPOSSIBLE_VOLUME
        assert node.store.counted_against() == {PEER: {"impossible": 2}}

    def test_a_volume_that_our_source_has_seen_today_counts(self, node: Node) -> None:
        self.history(node, days=20)
        node.say(bar(volume=60_000), CORE)
        assert node.say(bar(volume=60_001), INTERNAL) is Verdict.REPLACED
        assert node.say(bar(volume=60_002), INTERNAL) is Verdict.REPLACED

    def test_a_symbol_with_nineteen_days_may_have_any_volume(self, node: Node) -> None:
        self.history(node, days=19)
        assert node.say(bar(volume=MAX_VOLUME - 1), INTERNAL) is Verdict.ADDED

    def test_days_that_only_peers_wrote_are_no_history(self, node: Node) -> None:
        self.history(node, days=20)
        earlier = trading_days_before(FRIDAY, 21)[0]
        node.say(bar(day=earlier, volume=50_000), INTERNAL)
        assert node.say(bar(volume=50_001), INTERNAL) is Verdict.IMPOSSIBLE_VOLUME

    @pytest.mark.parametrize("ours", OURS)
    def test_our_own_source_is_not_judged(self, node: Node, ours: Authority) -> None:
        node.say(bar(day=THURSDAY), ours)
        assert node.say(bar(close=9e11, half_width=0), ours) is Verdict.ADDED

    def test_leaves_the_trust_window_as_it_was(self, node: Node) -> None:
        node.store.merge([bar(day=THURSDAY)], FOLLOWED, age=200)
        node.say(bar(close=9e11, half_width=0), INTERNAL)
        age = node.store.state().age
        assert age is not None
        assert age > 199

    def test_is_forgotten_after_a_day(self, node: Node) -> None:
        node.say(bar(day=THURSDAY), CORE)
        node.say(bar(close=9e11, half_width=0), INTERNAL)
        reads: Any = node.client
        [(field, times)] = reads.hgetall(f"{ROOT}:against").items()
        hour, rest = field.split(b" ", 1)
        for ago, counted in ((23, 1), (24, 0)):
            reads.delete(f"{ROOT}:against")
            reads.hset(f"{ROOT}:against", b"%d %b" % (int(hour) - ago, rest), times)
            assert len(node.store.counted_against()) == counted


class TestDaysThatOnlyPeersWrote:
    @pytest.mark.parametrize("ours", OURS)
    def test_are_listed_until_our_source_writes_them(self, node: Node, ours: Authority) -> None:
        node.say(bar(day=MONDAY), ours)
        assert node.foreign() == set()
        node.say(bar(day=FRIDAY), INTERNAL)
        node.say(bar(day=THURSDAY), INTERNAL)
        assert node.foreign() == {str(THURSDAY), str(FRIDAY)}
        node.say(bar(day=THURSDAY), ours)
        node.say(bar(day=FRIDAY, volume=2_000), ours)
        assert node.foreign() == set()

    def test_block_no_history_however_many_they_are(self, node: Node) -> None:
        days = [MONDAY, THURSDAY]
        node.load([bar(day=day) for day in days])
        invented = trading_days_before(MONDAY, 12)
        invented += [MONDAY + dt.timedelta(days=1)]
        for day in invented:
            assert node.say(bar(day=day), INTERNAL) is Verdict.ADDED
        adjusted = [bar(day=day, close=60_000) for day in days]
        assert node.load(adjusted) is Verdict.REPLACED
        assert node.served() == [of_day.encode() for of_day in adjusted]
        assert node.foreign() == set()

    def test_make_no_room_for_losing_days_of_our_own(self, node: Node) -> None:
        node.load([bar(day=MONDAY), bar(day=THURSDAY), bar(day=FRIDAY)])
        for day in trading_days_before(MONDAY, 140):
            node.say(bar(day=day), INTERNAL)
        assert node.load([bar(day=MONDAY), bar(day=FRIDAY)]) is Verdict.LOSES_DAYS

    def test_after_our_last_go_unless_they_are_todays(
        self, node: Node, store_client: redis.Redis
    ) -> None:
        saturday = FRIDAY + dt.timedelta(days=1)
        history = [bar(day=MONDAY), bar(day=THURSDAY)]
        node.load(history)
        node.say(bar(day=FRIDAY), INTERNAL)
        assert node.load(history) is Verdict.UNCHANGED  # Friday's may be news
        assert node.served()[-1] == bar(day=FRIDAY).encode()
        node.store.clock = a_store(store_client, at=exchange_time(saturday, 12)).clock
        assert node.say(bar(day=saturday, close=640_000), INTERNAL) is Verdict.CLOSED_DAY
        assert node.load(history) is Verdict.UNCHANGED
        assert node.served() == [*(day.encode() for day in history), bar(day=FRIDAY).encode()]
        assert node.store.newest()["VCB"].authority is INTERNAL
        node.store.clock = a_store(store_client, at=exchange_time(NEXT_MONDAY, 10)).clock
        node.load(history)
        assert node.served() == [day.encode() for day in history]
        assert node.store.newest()["VCB"].authority is CORE

    def test_are_forgotten_with_the_symbol(self, node: Node) -> None:
        node.say(TRUTH, CORE)
        node.say(LIE, INTERNAL)
        node.store.forget("VCB")
        reads: Any = node.client
        assert not any(b"VCB" in key for key in reads.scan_iter())
        assert node.say(LIE, INTERNAL) is Verdict.ADDED
