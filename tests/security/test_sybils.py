"""Many addresses, one liar: what they cost the node, and what a lie costs them.

SECURITY.md states the cost of moving one price, in actors and hours; it is computed here.
"""

import datetime as dt
import random
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings
from django.db import connection

from gossip.doors.claims import Claims
from proxy_site.housekeeping import settle_claims
from reputation import actors
from reputation.models import Actor
from reputation.transitions import ClaimEvent, Policy, Record, Status, TimeEvent, apply
from tests.support.doors import (
    ANCHORS,
    a_bar,
    make_late,
    merge_core,
    merge_later,
    send_public,
    served,
    wire,
)
from tickers import wiring
from tickers.store.store import Store

SECURITY = Path(__file__).parents[2] / "SECURITY.md"
LIE = ANCHORS["VCB"] * 1.09  # within the band
IMPLAUSIBLE = ANCHORS["VCB"] * 2
MODES = ["immediate", "when_late", "corroborated", "never"]
ADDRESSES = [f"10.{n // 256 // 40}.{n // 256 % 40}.{n % 256}" for n in range(10_000)]


@pytest.fixture
def late_market(market: Store, clean_server: redis.Redis) -> Store:
    merge_core(a_bar(volume=1_000))
    make_late(clean_server, seconds=100)
    return market


# --- What they cost us ----------------------------------------------------------------------------


@pytest.mark.django_db
class TestTenThousandAddresses:
    @pytest.mark.slow
    def test_that_say_something_plausible_take_a_look_up_each_and_little_else(
        self, late_market: Store, clean_server: redis.Redis, settings: Any
    ) -> None:
        """No row before the flush, one for each after it, and no key in Redis that stays."""
        settings.PUBLIC_BARS = "corroborated"
        wanted = wire(price=ANCHORS["VCB"], volume=1_000)  # what is served: changes nothing
        asked: list[str] = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            asked.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            statuses = {send_public(wanted, address=a).status_code for a in ADDRESSES}
        assert statuses == {200}
        assert len(asked) == len(ADDRESSES)
        assert all(sql.startswith("SELECT") for sql in asked)
        assert not Actor.objects.exists()
        while actors.flush():
            pass
        assert Actor.objects.count() == len(ADDRESSES)
        assert late_market.state().overlays == 0
        stay = [key for key in keys_of_the_cache() if "standing" in key or "rl:" in key]
        assert stay == []

    def test_that_lie_are_answered_and_move_nothing(
        self, late_market: Store, settings: Any
    ) -> None:
        lie = wire(price=IMPLAUSIBLE, volume=2_000)
        for address in ADDRESSES[:1_000]:
            assert send_public(lie, address=address).status_code == 400
        assert served()["close"] == ANCHORS["VCB"]
        assert Actor.objects.count() == 1_000

    def test_of_one_network_corroborate_nothing(self, late_market: Store, settings: Any) -> None:
        settings.PUBLIC_BARS = "corroborated"
        for n in range(256):
            answer = send_public(wire(price=LIE, volume=2_000), address=f"203.0.113.{n}")
            assert answer.status_code == 202
        assert served()["close"] == ANCHORS["VCB"]
        assert late_market.state().held == 1


def keys_of_the_cache() -> list[str]:
    """Those that never expire (TTL -1; -2 has just expired)."""
    from django_redis import get_redis_connection

    cache: Any = get_redis_connection()
    return [key.decode() for key in cache.scan_iter(count=1_000) if cache.ttl(key) == -1]


# --- What a lie costs them ------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("mode", "needed"), [("immediate", 1), ("when_late", 1), ("corroborated", 2), ("never", None)]
)
def test_how_many_actors_move_one_price(
    mode: str, needed: int | None, late_market: Store, settings: Any
) -> None:
    settings.PUBLIC_BARS = mode
    used = 0
    for n in range(20):
        send_public(wire(price=LIE, volume=2_000), address=f"10.0.{n}.1")
        used += 1
        if served()["close"] == LIE:
            break
    assert (used if served()["close"] == LIE else None) == needed
    assert said_in_security(mode, column=1) == ("none" if needed is None else str(needed))
    # And for how long: until a trusted source speaks of the symbol.
    merge_core(a_bar(volume=1_000))
    assert served()["close"] == ANCHORS["VCB"]


# --- What trust costs them ------------------------------------------------------------------------

SENDERS = [f"203.0.{n}.1" for n in range(30)]  # each in a network of its own
SYMBOLS = sorted(ANCHORS)


def settle() -> None:
    settle_claims(Claims(wiring.store()), lifetime=node_settings.TRUST_WINDOW)


def scores() -> dict[str, float]:
    return {a: s for a, s in Actor.objects.values_list("address", "confirmed_score") if s}


@pytest.mark.django_db
class TestTrust:
    @pytest.mark.parametrize("mode", MODES)
    def test_isnt_earned_by_our_own_prices_under_an_accomplices_lie(
        self, mode: str, market: Store, settings: Any
    ) -> None:
        """Two senders who know nothing but what the node serves, for six bars of each symbol."""
        settings.PUBLIC_BARS, settings.CLAIMS_PER_HOUR = mode, 1_000
        liar, echo = SENDERS[:2]
        for volume in range(1_000, 1_006):
            merge_later(*(a_bar(symbol, volume=volume) for symbol in SYMBOLS))
            settle()
            lies = [wire(s, price=ANCHORS[s] * 1.02, volume=volume) for s in SYMBOLS]
            assert send_public(lies, address=liar).status_code in (200, 202)
            own = [wire(symbol, volume=volume) for symbol in SYMBOLS]
            assert send_public(own, address=echo).status_code in (200, 202)
        merge_later(*(a_bar(symbol, volume=2_000) for symbol in SYMBOLS))
        settle()
        assert scores() == {}

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("step", [0, 1, -1])
    def test_is_earned_by_one_of_all_who_have_the_same_news(
        self, mode: str, step: int, market: Store, settings: Any
    ) -> None:
        """Also when each says some shares more, or less, than the one before."""
        settings.PUBLIC_BARS = mode
        merge_core(a_bar(volume=1_000))
        news = ANCHORS["VCB"] * 1.02
        volumes = [2_000 + step * n for n in range(len(SENDERS))]
        for sender, volume in zip(SENDERS, volumes, strict=True):
            send_public(wire(price=news, volume=volume), address=sender)
        for volume in sorted({*volumes}):
            merge_later(a_bar(price=news, volume=volume))
            settle()
        assert list(scores().values()) == [1]


POLICY = Policy()
MONDAY = dt.datetime(2025, 8, 11, 9, tzinfo=dt.UTC)


def office_hours() -> Any:
    """The ends of office hours, six a weekday."""
    day = MONDAY
    while True:
        if day.weekday() < 5:
            yield from (day + dt.timedelta(hours=hour) for hour in range(1, 7))
        day += dt.timedelta(days=1)


def cost_of_trust(
    right: float, *, years: int = 2, draw: random.Random | None = None
) -> tuple[int, int] | None:
    """Office hours, and pieces of news, until an actor is trusted that makes ten claims an hour, of
    which this share is right: evenly, or as ``draw`` has it. None: not in that time.

    Each of the right ones takes news that nobody else is paid for.
    """
    record, owed, news = Record(), 0.0, 0
    for hour, at in zip(range(years * 250 * 6), office_hours(), strict=False):
        for _ in range(node_settings.CLAIMS_PER_HOUR):
            owed += right
            is_right = draw.random() < right if draw else owed >= 1
            owed -= is_right
            news += is_right
            event = ClaimEvent.CONFIRMED if is_right else ClaimEvent.CONTRADICTED
            record = apply(record=record, event=event, policy=POLICY, at=at).record
            if record.status is Status.TRUSTED:
                return hour + 1, news
    return None


@pytest.mark.parametrize("right", [1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
def test_how_many_hours_of_being_right_trust_takes(right: float) -> None:
    cost = cost_of_trust(right)
    row = f"{right:.0%}".replace("%", " %")
    said = said_in_security(row, column=1), said_in_security(row, column=2)
    assert said == (("never", "") if cost is None else (f"{cost[0]} h", str(cost[1])))


def test_a_coin_earns_no_trust_in_ten_years() -> None:
    assert cost_of_trust(0.5, years=10, draw=random.Random(1)) is None


def test_what_was_earned_is_lost_by_idling() -> None:
    record = Record()
    for at in (MONDAY,) * 150:
        record = apply(record=record, event=ClaimEvent.CONFIRMED, policy=POLICY, at=at).record
    assert record.status is Status.TRUSTED
    later = MONDAY + dt.timedelta(days=60)
    faded = apply(record=record, event=TimeEvent.MERIT_FADED, policy=POLICY, at=later).record
    assert faded.status is Status.PROBATION


def said_in_security(row: str, *, column: int) -> str:
    """A cell of the tables in SECURITY.md's part on costs, by its row's first cell."""
    part = SECURITY.read_text(encoding="utf-8").partition("## What moving one price costs")[2]
    (found,) = re.findall(rf"^\| `?{re.escape(row)}`? \|(.*)\|$", part, flags=re.MULTILINE)
    return str(found.split("|")[column - 1].strip())
