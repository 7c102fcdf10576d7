"""Claims: news that a later trusted bar agrees with earns trust, and nothing else does."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.doors import claims as claims_module
from gossip.doors.claims import NEAR, Claim, ClaimResult, Claims, judge, judge_all
from proxy_site.housekeeping import settle_claims
from reputation.models import StatusChange
from tests.support.clock import at_once
from tests.support.doors import (
    ANCHORS,
    AWAY,
    HOME,
    a_bar,
    merge_core,
    merge_later,
    send_public,
    wire,
)
from tickers import wiring
from tickers.bar import epoch_of
from tickers.store.records import Newest
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

CLOSE = ANCHORS["VCB"]
DAY = epoch_of(a_bar().day)
LIFETIME = 300.0
CLAIM = Claim(
    HOME, "VCB", DAY, close=104.0, volume=1_000, served=100.0, anchor=100.0, made_at=1_000_000
)

prices = st.floats(50, 150)


def trusted(close: float, *, volume: int = 1_000, at: int = 1_005_000, day: int = DAY) -> Newest:
    return Newest(day, Authority.CORE, volume, repr(close), at, b"")


def judged(bar: Newest | None, *, now: int = 1_006_000, claim: Claim = CLAIM) -> ClaimResult:
    return judge(claim, bar, now=now, lifetime=LIFETIME)


def judged_together(claims: list[Claim], bar: Newest | None) -> dict[Claim, ClaimResult]:
    return judge_all(claims, bar, now=1_006_000, lifetime=LIFETIME)


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        (104.0, ClaimResult.CONFIRMED),
        (104.0 * (1 - NEAR), ClaimResult.CONFIRMED),
        (104.0 * (1 - NEAR) - 0.01, ClaimResult.CONTRADICTED),
        (104.0 * (1 + NEAR), ClaimResult.CONFIRMED),
        (106.0, ClaimResult.CONTRADICTED),
        (100.0, ClaimResult.CONTRADICTED),
        (99.0, ClaimResult.CONTRADICTED),
    ],
)
def test_a_claim_is_confirmed_by_what_comes_close(close: float, expected: ClaimResult) -> None:
    assert judged(trusted(close)) is expected


def test_a_guess_that_what_was_served_told_as_well_is_contradicted() -> None:
    """A step of a tick is near whatever comes; it must be nearer than no step at all."""
    step = replace(CLAIM, close=100.1)
    assert judged(trusted(100.0), claim=step) is ClaimResult.CONTRADICTED
    assert judged(trusted(100.04), claim=step) is ClaimResult.CONTRADICTED
    assert judged(trusted(100.06), claim=step) is ClaimResult.CONFIRMED


@pytest.mark.parametrize(
    ("served", "anchor"),
    [
        (100.0, 104.0),  # our own price, under somebody's lie
        (104.0, 100.0),  # somebody's news
    ],
)
def test_what_is_said_already_is_no_news_and_never_confirmed(served: float, anchor: float) -> None:
    echo = replace(CLAIM, served=served, anchor=anchor)
    assert not echo.is_news
    assert replace(echo, close=104.1).is_news
    assert judged(trusted(104.0), claim=echo) is ClaimResult.CONTRADICTED


@given(served=prices, anchor=prices, close=prices, now=prices)
def test_a_lie_over_the_anchor_confirms_nothing(
    served: float, anchor: float, close: float, now: float
) -> None:
    """Whatever is served, a claim earns only what it earns where the anchor is served."""
    claim = replace(CLAIM, served=served, anchor=anchor, close=close)
    if judged(trusted(now), claim=claim) is ClaimResult.CONFIRMED:
        assert judged(trusted(now), claim=replace(claim, served=anchor)) is ClaimResult.CONFIRMED


@given(
    anchor=prices,
    served=st.floats(-5, 5),
    step=st.floats(0.001, 5),
    moved=st.floats(-5, 5),
    late=st.booleans(),
)
def test_guessing_up_and_down_never_earns_from_both(
    anchor: float, served: float, step: float, moved: float, late: bool
) -> None:
    both = [
        replace(CLAIM, actor=actor, anchor=anchor, served=anchor + served, close=anchor + move)
        for actor, move in ((HOME, -step if late else step), (AWAY, step if late else -step))
    ]
    found = list(judged_together(both, trusted(anchor + moved)).values())
    assert found.count(ClaimResult.CONFIRMED) <= found.count(ClaimResult.CONTRADICTED)


@pytest.mark.parametrize(
    "bar",
    [
        trusted(104.0, at=1_000_000),  # it was there when the claim was made
        trusted(104.0, volume=999),  # it is of an earlier moment
    ],
)
def test_a_claim_waits_for_a_later_bar_and_lapses(bar: Newest) -> None:
    assert judged(bar) is ClaimResult.OPEN
    assert judged(bar, now=1_000_000 + 300_001) is ClaimResult.LAPSED


def test_a_claim_lapses_with_its_day() -> None:
    assert judged(trusted(104.0, day=DAY + 86_400)) is ClaimResult.LAPSED
    assert judged(None) is ClaimResult.LAPSED


# --- Together -------------------------------------------------------------------------------------

many_claims = st.lists(
    st.builds(
        replace,
        st.just(CLAIM),
        actor=st.sampled_from([f"10.0.0.{n}" for n in range(8)]),
        close=st.sampled_from([98.0, 99.9, 100.1, 102.0, 103.9, 104.0, 104.1, 106.0]),
        volume=st.sampled_from([900, 1_000, 1_100]),
        served=st.sampled_from([100.0, 103.9]),
        made_at=st.integers(999_990, 1_006_000),
    ),
    max_size=12,
    unique_by=lambda claim: claim.actor,
)
closes = st.sampled_from([98.0, 100.0, 100.06, 103.0, 104.0, 104.1])


@given(many_claims, closes)
def test_a_bar_confirms_one_claim_the_earliest_that_is_right(
    claims: list[Claim], close: float
) -> None:
    bar = trusted(close)
    right = [claim for claim in claims if judged(bar, claim=claim) is ClaimResult.CONFIRMED]
    earliest = min(right, key=lambda claim: (claim.made_at, claim.actor), default=None)
    found = judged_together(claims, bar)
    assert [c for c, its in found.items() if its is ClaimResult.CONFIRMED] == (
        [earliest] * bool(right)
    )


@given(many_claims, closes)
def test_what_is_wrong_is_contradicted_whatever_becomes_of_others(
    claims: list[Claim], close: float
) -> None:
    bar = trusted(close)
    wrong = {claim for claim in claims if judged(bar, claim=claim) is ClaimResult.CONTRADICTED}
    found = judged_together(claims, bar)
    assert {claim for claim, its in found.items() if its is ClaimResult.CONTRADICTED} == wrong


@given(many_claims, closes)
def test_nothing_that_a_confirming_bar_bears_out_is_left_for_the_next(
    claims: list[Claim], close: float
) -> None:
    first, after = trusted(close), trusted(close, volume=2_000, at=1_005_500)
    found = judged_together(claims, first)
    before = [
        claim
        for claim, its in found.items()
        if its is ClaimResult.OPEN and claim.made_at < 1_005_000
    ]
    if ClaimResult.CONFIRMED in found.values():
        assert ClaimResult.CONFIRMED not in judged_together(before, after).values()


# --- In a node ------------------------------------------------------------------------------------

UP = CLOSE + 500


def settle() -> tuple[Counter[str], Counter[str]]:
    return Claims(wiring.store()).settle(lifetime=LIFETIME)[:2]


def say(price: float, volume: int, address: str = HOME) -> int:
    return int(send_public(wire(price=price, volume=volume), address=address).status_code)


def claims_open() -> int:
    return int(wiring.store().client.hlen(f"{ROOT}:open_claims"))


@pytest.mark.django_db
class TestInANode:
    def test_news_that_comes_true_is_confirmed_once(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        assert say(UP, 2_000) == 200
        assert settle() == (Counter(), Counter())
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter({HOME: 1}), Counter())
        assert settle() == (Counter(), Counter())

    def test_an_echo_claims_nothing(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        assert say(CLOSE, 1_000) == 200
        assert say(CLOSE, 2_000) == 200  # some more shares at the price that we serve
        merge_later(a_bar(volume=3_000))
        assert settle() == (Counter(), Counter())

    def test_an_echo_of_another_senders_bar_claims_nothing(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        assert say(UP, 2_000, HOME) == 200
        assert say(UP, 2_500, AWAY) == 200
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter({HOME: 1}), Counter())

    def test_our_own_price_under_another_senders_lie_claims_nothing(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        assert say(UP, 1_000, AWAY) == 200
        assert say(CLOSE, 1_000, HOME) == 200
        merge_later(a_bar(volume=1_001))
        assert settle() == (Counter(), Counter({AWAY: 1}))

    def test_one_of_many_who_say_the_same_is_confirmed(self, market: Store, settings: Any) -> None:
        settings.PUBLIC_BARS = "never"  # so that nobody's is served
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000, HOME)
        for n in range(20):
            say(UP + n % 3, 2_000 + n, f"10.0.{n}.1")
        say(CLOSE - 500, 2_000, AWAY)
        merge_later(a_bar(price=UP, volume=2_000))
        assert settle() == (Counter({HOME: 1}), Counter({AWAY: 1}))
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter(), Counter())

    def test_a_claim_made_while_they_are_settled_is_judged_with_the_others(
        self, market: Store, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bar that judges the first comes, after a second claim, in the middle of a turn."""
        settings.PUBLIC_BARS = "never"
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000, HOME)
        store = wiring.store()
        newest = store.newest

        def late(symbols: Any) -> Any:
            monkeypatch.undo()
            say(UP, 2_000, AWAY)
            merge_later(a_bar(price=UP, volume=3_000))
            return newest(symbols)

        monkeypatch.setattr(store, "newest", late)
        claims = Claims(store)
        turns = [claims.settle(lifetime=LIFETIME)[0] for _ in range(2)]
        assert turns == [Counter({HOME: 1}), Counter()]

    def test_leaders_that_settle_at_once_count_nothing_twice(
        self, market: Store, settings: Any
    ) -> None:
        settings.PUBLIC_BARS = "never"
        symbols = sorted(ANCHORS)
        merge_core(*(a_bar(symbol, volume=1_000) for symbol in symbols))
        for address in (HOME, AWAY):
            send_public(
                [wire(s, price=ANCHORS[s] * 1.02, volume=2_000) for s in symbols], address=address
            )
        merge_later(*(a_bar(s, price=ANCHORS[s] * 1.02, volume=3_000) for s in symbols))
        claims = Claims(wiring.store())
        turns = at_once(lambda: claims.settle(lifetime=LIFETIME)[0], threads=8)
        assert sum(turns, Counter()) == Counter({HOME: len(symbols)})

    def test_a_leader_that_another_overtook_ends_none_of_what_it_judged(
        self, market: Store, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It judged by an older bar; meanwhile a sender that was judged has claimed again."""
        settings.PUBLIC_BARS = "never"
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000, HOME)
        say(UP + 100, 2_000, AWAY)
        merge_later(a_bar(price=UP, volume=3_000))
        slow, quick = Claims(wiring.store()), Claims(wiring.store())
        end = slow._end
        found: list[Counter[str]] = []

        def overtaken(**options: Any) -> Any:
            merge_later(a_bar(price=UP + 100, volume=4_000))
            found.append(quick.settle(lifetime=LIFETIME)[0])
            say(UP + 200, 4_000, HOME)
            return end(**options)

        monkeypatch.setattr(slow, "_end", overtaken)
        found.append(slow.settle(lifetime=LIFETIME)[0])
        assert sum(found, Counter()).total() == 1
        assert claims_open() == 1

    def test_the_scripts_are_made_once_and_run_for_news_only(
        self, market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register, made, runs = market.client.register_script, [], 0

        def spied(source: str) -> Any:
            script = register(source)
            made.append(source)

            def run(**options: Any) -> Any:
                nonlocal runs
                runs += 1
                return script(**options)

            return run

        monkeypatch.setattr(market.client, "register_script", spied)
        merge_core(a_bar(volume=1_000))
        assert [say(CLOSE, 2_000), say(CLOSE, 1)] == [200, 422]
        assert runs == 0
        assert [say(UP, 3_000), say(UP + 500, 4_000), say(UP + 500, 5_000)] == [200, 200, 200]
        assert (len(made), runs) == (2, 2)

    def test_news_that_does_not_come_true_is_contradicted(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000)
        merge_later(a_bar(price=CLOSE - 500, volume=3_000))
        assert settle() == (Counter(), Counter({HOME: 1}))

    def test_sending_again_doesnt_hold_off_the_judgement(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000)
        say(UP + 100, 2_500)
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter({HOME: 1}), Counter())

    def test_an_actor_makes_few_claims_an_hour(self, market: Store, settings: Any) -> None:
        settings.CLAIMS_PER_HOUR = 2
        symbols = sorted(ANCHORS)
        merge_core(*(a_bar(symbol, volume=1_000) for symbol in symbols))
        news = {symbol: ANCHORS[symbol] * 1.02 for symbol in symbols}
        send_public([wire(symbol, price=news[symbol], volume=2_000) for symbol in symbols])
        merge_later(*(a_bar(symbol, price=news[symbol], volume=3_000) for symbol in symbols))
        assert settle() == (Counter({HOME: 2}), Counter())

    @pytest.mark.parametrize(
        ("crowd", "stranger"),
        [
            ("2001:db8:1:{:x}::1", "2001:db8:2::1"),
            ("192.0.2.{}", "192.0.3.1"),
            ("::{:x}:0:0:0:1", "2001:db8:2::1"),
        ],
    )
    def test_a_network_leaves_room_for_others(
        self,
        market: Store,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        crowd: str,
        stranger: str,
    ) -> None:
        settings.PUBLIC_BARS = "never"
        monkeypatch.setattr(claims_module, "MAX_OF_NETWORK", 5)
        merge_core(a_bar(volume=1_000), a_bar("PVS", volume=1_000))
        send_public(wire("PVS", price=ANCHORS["PVS"] * 1.02, volume=2_000), address=HOME)
        for n in range(20):
            assert say(CLOSE - 500, 2_000, crowd.format(n)) == 200
        assert claims_open() == 6
        say(UP, 2_000, stranger)
        merge_later(a_bar(price=UP, volume=3_000))
        confirmed, contradicted = settle()
        assert (confirmed.total(), contradicted.total()) == (1, 5)
        # What is judged makes room, also while others aren't.
        for n in range(20):
            say(CLOSE - 500, 4_000, crowd.format(100 + n))
        assert claims_open() == 6

    def test_claims_of_all_networks_are_bounded(
        self, market: Store, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.PUBLIC_BARS = "never"
        monkeypatch.setattr(claims_module, "MAX_CLAIMS", 5)
        merge_core(a_bar(volume=1_000))
        for n in range(20):
            say(UP, 2_000, f"10.0.{n}.1")
        assert claims_open() == 5

    def test_claims_leave_no_key_behind(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000)
        merge_later(a_bar(price=UP, volume=3_000))
        settle()
        kept = set(market.client.scan_iter(f"{ROOT}:*claim*"))
        assert kept == {f"{ROOT}:claims:{HOME}".encode()}
        assert market.client.ttl(kept.pop()) > 0

    def test_what_no_trusted_bar_catches_up_with_lapses(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        say(UP, 1_000_000)
        store = wiring.store()
        claims = Claims(store)
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter(), Counter())
        assert claims.settle(lifetime=-1) == (Counter(), Counter(), {})
        merge_later(a_bar(price=UP, volume=2_000_000))
        assert settle() == (Counter(), Counter())

    def test_a_promotion_names_the_claims_that_earned_it(
        self, market: Store, settings: Any
    ) -> None:
        settings.TRUST_AFTER_CONFIRMED = 1
        merge_core(a_bar(volume=1_000))
        say(UP, 2_000)
        merge_later(a_bar(price=UP, volume=3_000))
        settle_claims(Claims(wiring.store()), lifetime=LIFETIME)
        change = StatusChange.objects.get()
        assert (change.to_status, change.actor_id is not None) == ("TRUSTED", True)
        assert "VCB" in str(change.evidence)
        assert "confirmed" in str(change.evidence)
