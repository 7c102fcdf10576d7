"""A refusal can be appealed by the market: what trusted bars of the day cover was no failure."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from gossip.doors.appeals import Hearing, covers, read, written
from reputation import appeals
from reputation.models import Actor, Appeal, StatusChange
from reputation.transitions import OperatorEvent
from tests.support.doors import (
    HOME,
    TODAY,
    YESTERDAY,
    a_bar,
    by_operator,
    merge_core,
    record,
    send_public,
    send_trusted,
    wire,
)
from tickers.store.store import Store

pytestmark = pytest.mark.django_db(transaction=True)

EX_DATE: dict[str, Any] = {"price": 45_000}  # 30 % below the unadjusted close of yesterday


@pytest.fixture
def hearing(market: Store) -> Hearing:
    return Hearing(market)


def fail(times: int, body: object = None) -> None:
    for _ in range(times):
        assert send_public(body or wire(**EX_DATE)).status_code == 400


class TestGranted:
    def test_a_ban_ends_when_our_own_fetch_shows_the_day(self, hearing: Hearing) -> None:
        fail(6)
        assert record() == ("BANNED", 0, 6)
        merge_core(a_bar(**EX_DATE))
        assert hearing.turn() == 6
        assert record() == ("PROBATION", 0, 0)
        actor = Actor.objects.get()
        assert (actor.failure_score, actor.bans, actor.banned_until) == (0, 0, None)
        assert send_public(wire(price=45_100)).status_code == 200

    def test_the_admin_shows_why(self, hearing: Hearing) -> None:
        fail(6)
        merge_core(a_bar(**EX_DATE))
        hearing.turn()
        changes = StatusChange.objects.filter(from_status="BANNED")
        (ended,) = changes.filter(to_status="PROBATION")
        assert "the market showed that a refused request was right" in ended.reason
        assert '"close":45000' in str(ended.evidence)

    def test_a_failure_that_banned_nobody_is_struck_too(self, hearing: Hearing) -> None:
        fail(2)
        merge_core(a_bar(**EX_DATE))
        hearing.turn()
        assert record() == ("PROBATION", 0, 0)

    def test_each_appeal_is_granted_once(self, hearing: Hearing) -> None:
        fail(2)
        merge_core(a_bar(**EX_DATE))
        assert hearing.turn() == 2
        assert hearing.turn() == 0
        assert not Appeal.objects.exists()


class TestNotGranted:
    def test_a_lie_stays_a_failure(self, hearing: Hearing) -> None:
        fail(6, wire(price=99_000))
        merge_core(a_bar(price=64_400))
        assert hearing.turn() == 0
        assert record() == ("BANNED", 0, 6)

    def test_a_peers_bar_shows_nothing(self, hearing: Hearing) -> None:
        fail(6)
        assert send_trusted(wire(**EX_DATE)).status_code == 200
        assert hearing.turn() == 0
        assert record() == ("BANNED", 0, 6)

    def test_all_implausible_bars_of_the_request_must_be_covered(self, hearing: Hearing) -> None:
        fail(1, [wire(**EX_DATE), wire("PVS", price=99_000)])
        merge_core(a_bar(**EX_DATE), a_bar("PVS"))
        assert hearing.turn() == 0
        assert record() == ("PROBATION", 0, 1)

    def test_plausible_bars_of_the_request_need_not_come_true(self, hearing: Hearing) -> None:
        send_public([wire(**EX_DATE), wire("PVS", price=36_000)])
        merge_core(a_bar(**EX_DATE), a_bar("PVS", price=33_000))
        assert hearing.turn() == 1

    def test_an_operators_ban_stays(self, hearing: Hearing) -> None:
        fail(2)
        by_operator(OperatorEvent.BAN)
        merge_core(a_bar(**EX_DATE))
        assert hearing.turn() == 2
        assert record()[0] == "BANNED"

    def test_an_appeal_earns_no_trust(self, hearing: Hearing, settings: Any) -> None:
        settings.TRUST_AFTER_CONFIRMED = 1
        fail(1)
        merge_core(a_bar(**EX_DATE))
        hearing.turn()
        assert record()[0] == "PROBATION"
        assert Actor.objects.get().confirmed_score == 0


class TestWaiting:
    def test_ends_after_a_day(self, hearing: Hearing) -> None:
        fail(1)
        Appeal.objects.update(failed_at=timezone.now() - dt.timedelta(hours=25))
        merge_core(a_bar(**EX_DATE))
        assert hearing.turn() == 0
        assert not Appeal.objects.exists()
        assert record() == ("PROBATION", 0, 1)

    def test_a_network_leaves_room_for_others(
        self, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(appeals, "MAX_OPEN", 200)
        fail(4)  # of 2 that its network may file
        cache.clear()
        assert send_public(wire(**EX_DATE), address="198.51.100.7").status_code == 400
        addresses = Appeal.objects.values_list("actor__address", flat=True)
        assert sorted(addresses) == ["198.51.100.7", HOME, HOME]
        assert record() == ("PROBATION", 0, 4)

    def test_many_are_heard_in_turns(
        self, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gossip.doors.appeals.MOST_AT_ONCE", 2)
        fail(3, wire(price=99_000))
        fail(2)
        merge_core(a_bar(**EX_DATE))
        assert sum(hearing.turn() for _ in range(4)) == 2


class TestCovers:
    TRUSTED = a_bar(open=64_000, high=66_000, low=63_000, close=65_000)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"price": 63_000},
            {"price": 66_000},
            {"price": 66_329},
            {"high": 66_330, "close": 66_330},
            {"low": 62_685, "close": 62_685},
        ],
    )
    def test_takes_what_lies_near_to_what_was_traded(self, fields: dict[str, Any]) -> None:
        assert covers(self.TRUSTED, a_bar(**fields))

    @pytest.mark.parametrize(
        "fields", [{"high": 66_331}, {"low": 62_684}, {"price": 70_000}, {"price": 64.3}]
    )
    def test_refuses_one_price_further_outside(self, fields: dict[str, Any]) -> None:
        assert not covers(self.TRUSTED, a_bar(**fields))

    def test_is_of_one_symbol_and_day(self) -> None:
        assert not covers(self.TRUSTED, replace(a_bar(), day=YESTERDAY))
        assert not covers(self.TRUSTED, replace(a_bar(), symbol="FPT"))


@given(
    st.lists(
        st.builds(
            lambda symbol, price: a_bar(symbol, price=price, volume=0),
            st.sampled_from(["VCB", "PVS"]),
            st.floats(0.001, 1e9),
        )
    )
)
def test_what_is_appealed_is_read_back_as_it_was(bars: list[Any]) -> None:
    assert read(written(bars)) == bars
    assert all(bar.day == TODAY for bar in bars)
