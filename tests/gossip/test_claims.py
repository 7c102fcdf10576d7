"""Claims: news that a later trusted bar agrees with earns trust, and nothing else does."""

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.claims import NEAR, Claim, Claims, Fate, fate
from proxy_site.housekeeping import settle_claims
from reputation.models import StatusChange
from tests.gossip.conftest import ANCHORS, AWAY, HOME, a_bar, merge_core, send_public, wire
from tests.tickers.conftest import wait_until
from tickers import access
from tickers.bar import Bar, epoch_of
from tickers.store import Authority, Newest, Store

CLOSE = ANCHORS["VCB"]
DAY = epoch_of(a_bar().day)
LIFETIME = 300.0
CLAIM = Claim(HOME, "VCB", DAY, close=104.0, volume=1_000, served=100.0, made_at=1_000_000)

prices = st.floats(50, 150)


def trusted(close: float, *, volume: int = 1_000, at: int = 1_005_000, day: int = DAY) -> Newest:
    return Newest(day, Authority.CORE, volume, repr(close), at, b"")


def judged(bar: Newest | None, *, now: int = 1_006_000, claim: Claim = CLAIM) -> Fate:
    return fate(claim, bar, now=now, lifetime=LIFETIME)


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        (104.0, Fate.CONFIRMED),
        (104.0 * (1 - NEAR), Fate.CONFIRMED),
        (104.0 * (1 - NEAR) - 0.01, Fate.CONTRADICTED),
        (104.0 * (1 + NEAR), Fate.CONFIRMED),
        (106.0, Fate.CONTRADICTED),
        (100.0, Fate.CONTRADICTED),
        (99.0, Fate.CONTRADICTED),
    ],
)
def test_is_confirmed_by_what_comes_close(close: float, expected: Fate) -> None:
    assert judged(trusted(close)) is expected


def test_a_guess_that_what_was_served_told_as_well_is_contradicted() -> None:
    """A step of a tick is near whatever comes; it must be nearer than no step at all."""
    step = replace(CLAIM, close=100.1)
    assert judged(trusted(100.0), claim=step) is Fate.CONTRADICTED
    assert judged(trusted(100.04), claim=step) is Fate.CONTRADICTED
    assert judged(trusted(100.06), claim=step) is Fate.CONFIRMED


@given(served=prices, step=st.floats(0.001, 5), moved=st.floats(-5, 5))
def test_guessing_up_and_down_never_earns_from_both(
    served: float, step: float, moved: float
) -> None:
    both = [
        judged(trusted(served + moved), claim=replace(CLAIM, served=served, close=served + sign))
        for sign in (step, -step)
    ]
    assert both.count(Fate.CONFIRMED) <= both.count(Fate.CONTRADICTED)


@pytest.mark.parametrize(
    "bar",
    [
        trusted(104.0, at=1_000_000),  # it was there when the claim was made
        trusted(104.0, volume=999),  # it is of an earlier moment
    ],
)
def test_waits_for_a_later_bar_and_lapses(bar: Newest) -> None:
    assert judged(bar) is Fate.OPEN
    assert judged(bar, now=1_000_000 + 300_001) is Fate.LAPSED


def test_lapses_with_its_day() -> None:
    assert judged(trusted(104.0, day=DAY + 86_400)) is Fate.LAPSED
    assert judged(None) is Fate.LAPSED


# --- In a node ------------------------------------------------------------------------------------

UP = CLOSE + 500


def settle() -> tuple[Counter[str], Counter[str]]:
    return Claims(access.store()).settle(lifetime=LIFETIME)[:2]


def say(price: float, volume: int, address: str = HOME) -> int:
    return int(send_public(wire(price=price, volume=volume), address=address).status_code)


def merge_later(*bars: Bar) -> None:
    """Merge bars that came after what was claimed: the store's time is in milliseconds."""
    claimed = now()
    wait_until(lambda: now() > claimed)
    merge_core(*bars)


def now() -> int:
    seconds, microseconds = cast(tuple[int, int], access.store().client.time())
    return seconds * 1_000 + microseconds // 1_000


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

    def test_nor_does_an_echo_of_another_senders_bar(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        assert say(UP, 2_000, HOME) == 200
        assert say(UP, 2_500, AWAY) == 200
        merge_later(a_bar(price=UP, volume=3_000))
        assert settle() == (Counter({HOME: 1}), Counter())

    def test_the_script_is_made_once_and_runs_for_news_only(
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
        assert (len(made), runs) == (1, 2)

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

    def test_what_no_trusted_bar_catches_up_with_lapses(self, market: Store) -> None:
        merge_core(a_bar(volume=1_000))
        say(UP, 1_000_000)
        store = access.store()
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
        settle_claims(Claims(access.store()), lifetime=LIFETIME)
        change = StatusChange.objects.get()
        assert (change.to_status, change.actor_id is not None) == ("TRUSTED", True)
        assert "VCB" in str(change.evidence)
        assert "confirmed" in str(change.evidence)
