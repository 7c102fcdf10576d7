"""POST /public/gossip, as anyone meets it."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db.models import Sum
from hypothesis import given

from gossip.doors import judging, laying
from reputation import actors
from reputation.models import Actor, HourlyCount, StatusChange
from reputation.transitions import OperatorEvent
from tests.support.bars import trading_days_before
from tests.support.doors import (
    ANCHORS,
    AWAY,
    CLIENT,
    HOME,
    TODAY,
    USUAL_VOLUME,
    YESTERDAY,
    a_bar,
    bodies,
    by_operator,
    cache_away,
    database_away,
    footprint,
    forget,
    lead,
    make_late,
    many_bodies,
    merge_core,
    record,
    satisfies_the_rules,
    send_public,
    send_trusted,
    served,
    store_away,
    store_lost,
    wire,
)
from tickers import wiring
from tickers.bar import epoch_of, parse
from tickers.market_clock import MarketClock
from tickers.store.records import State
from tickers.store.store import Store
from tickers.verdict import Authority

pytestmark = pytest.mark.django_db

BANNED = (403, "Source IP is banned")
IMPLAUSIBLE = (400, "Implausible price change")
UNTRUSTED = (503, "System is running on untrusted data")
TODAY_TEXT, YESTERDAY_TEXT = f"{TODAY}T00:00:00Z", f"{YESTERDAY}T00:00:00Z"
LIE = wire(price=70_731)


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def verdict(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["verdict"]


class LimiterClock:
    """The time of day that the rate limit goes by."""

    now = 1_755_226_800.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def limiter_clock(monkeypatch: pytest.MonkeyPatch) -> LimiterClock:
    clock = LimiterClock()
    monkeypatch.setattr("django_ratelimit.core.time", clock)
    return clock


def flood(send: Callable[[], Any], count: int) -> list[int]:
    return [send().status_code for _ in range(count)]


class TestTaken:
    def test_a_plausible_bar_is_served_and_counts(self, market: Store) -> None:
        bar = wire(open=64_000, high=66_000, low=63_000, close=65_000)
        answer = send_public(bar)
        assert (answer.status_code, answer.json()) == (200, {"symbol": "VCB", "verdict": "laid"})
        assert served() == bar
        assert record() == ("PROBATION", 1, 0)

    def test_it_never_becomes_the_trusted_bar(self, market: Store) -> None:
        merge_core(a_bar())
        send_public(wire(price=65_000))
        trusted = CLIENT.get("/tickers", {"symbol": "VCB", "authority": "trusted"}).json()
        assert trusted["VCB"][-1] == wire()
        assert market.newest(["VCB"])["VCB"].anchor == "64300"

    def test_no_token_is_asked_for_or_looked_at(self, market: Store) -> None:
        answer = send_public(wire(), headers={"Authorization": "Bearer wrong-token"})
        assert answer.status_code == 200

    def test_a_bar_equal_to_what_is_served_changes_nothing(self, market: Store) -> None:
        merge_core(a_bar())
        position = market.state().position
        assert verdict(send_public(wire())) == (200, "unchanged")
        assert market.state().position == position
        assert record() == ("PROBATION", 1, 0)

    def test_a_volume_equal_to_what_is_served_is_enough(self, market: Store) -> None:
        merge_core(a_bar())
        assert verdict(send_public(wire(price=65_000))) == (200, "laid")
        assert verdict(send_public(wire(price=66_000), address=AWAY)) == (200, "laid")
        assert served()["close"] == 66_000

    def test_accepted_bars_alone_earn_no_trust(self, market: Store, settings: Any) -> None:
        settings.TRUST_AFTER_CONFIRMED = 3
        for volume in range(4):
            send_public(wire(volume=USUAL_VOLUME + volume))
        assert record() == ("PROBATION", 4, 0)

    def test_confirmed_bars_earn_trust(self, market: Store, settings: Any) -> None:
        settings.TRUST_AFTER_CONFIRMED = 3
        send_public(wire())
        actors.record_claims(confirmed={HOME: 3}, contradicted={})
        assert record() == ("TRUSTED", 1, 0)

    def test_costs_no_sql(self, market: Store, django_assert_num_queries: Any) -> None:
        send_public(wire())
        with django_assert_num_queries(0):
            for volume in range(1, 6):
                assert send_public([wire(volume=USUAL_VOLUME + volume)]).status_code == 200
        assert record() == ("PROBATION", 6, 0)

    def test_asks_the_store_once_where_it_stands(
        self, market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_public(wire())  # this process's first needs its snapshot
        state, asked = market.state, []

        def noted() -> State:
            asked.append(1)
            return state()

        monkeypatch.setattr(market, "state", noted)
        for volume in range(1, 4):
            assert verdict(send_public(wire(volume=USUAL_VOLUME + volume))) == (200, "laid")
        assert len(asked) == 3

    def test_the_trust_window_isnt_refreshed(self, empty_market: Store) -> None:
        empty_market.merge([a_bar(day=YESTERDAY)], Authority.INTERNAL, age=200)
        assert send_public(wire()).status_code == 200
        age = empty_market.state().age
        assert age is not None
        assert age >= 200


class TestPlausibility:
    # Each price by itself, as far as a bar's own rules let it move by itself.
    UP = [("high",), ("open", "high"), ("close", "high"), ("open", "high", "low", "close")]
    DOWN = [("low",), ("open", "low"), ("close", "low"), ("open", "high", "low", "close")]
    LIMITS = [
        ("VCB", 57_870, 70_730),
        ("PVS", 31_500, 38_500),
        ("VNINDEX", 1440.072, 1760.088),
        ("ACV", 85_000, 115_000),
    ]
    STEP = 0.01
    # The other prices may lie one price step further: exchanges round their limits to the step.
    PRICE_STEPS = {"VCB": 100, "PVS": 100, "VNINDEX": 0.01, "ACV": 100}

    @pytest.mark.parametrize(("symbol", "low", "high"), LIMITS)
    @pytest.mark.parametrize(
        ("names", "up"), [(names, True) for names in UP] + [(names, False) for names in DOWN]
    )
    def test_exactly_at_the_band_passes_and_beyond_it_fails(
        self, symbol: str, low: float, high: float, names: list[str], up: bool, market: Store
    ) -> None:
        margin = self.STEP + (0 if "close" in names else self.PRICE_STEPS[symbol])
        limit, beyond = (high, high + margin) if up else (low, low - margin)
        before = footprint()
        lie = {**wire(symbol), **dict.fromkeys(names, round(beyond, 3))}
        assert told(send_public(lie, address=AWAY)) == IMPLAUSIBLE
        assert record(AWAY) == ("PROBATION", 0, 1)
        assert footprint()[:3] == before[:3]
        truth = {**wire(symbol), **dict.fromkeys(names, limit)}
        assert verdict(send_public(truth)) == (200, "laid")
        assert served(symbol) == truth
        assert record() == ("PROBATION", 1, 0)

    def test_is_judged_by_the_trusted_close_not_by_the_last_public_bar(self, market: Store) -> None:
        """Ten steps of 9.9 % each moved a node that compares with what it serves to 150,380."""
        price, statuses = float(ANCHORS["VCB"]), []
        for step in range(10):
            price = round(price * 1.099)
            answer = send_public(
                wire(price=price, volume=USUAL_VOLUME + step), address=f"192.0.2.{step}"
            )
            statuses.append(answer.status_code)
        assert statuses == [200] + [400] * 9
        assert served()["close"] == 70_666

    def test_an_overlay_at_the_limit_doesnt_narrow_or_widen_the_band(self, market: Store) -> None:
        assert send_public(wire(price=70_730)).status_code == 200
        assert verdict(send_public(wire(price=57_870))) == (200, "laid")
        assert told(send_public(LIE)) == IMPLAUSIBLE

    def test_moves_with_the_trusted_close(self, market: Store) -> None:
        assert told(send_public(LIE)) == IMPLAUSIBLE
        merge_core(a_bar(price=68_000))
        assert verdict(send_public(LIE)) == (200, "laid")

    def test_follows_the_setting_down_to_the_exchanges_own_width(
        self, market: Store, settings: Any
    ) -> None:
        settings.MAX_PRICE_CHANGE = 0.02
        assert told(send_public(wire(price=69_000))) == IMPLAUSIBLE
        assert told(send_public(wire("VNINDEX", price=1_632.09))) == IMPLAUSIBLE
        # HOSE allows 7 % itself.
        assert verdict(send_public(wire(price=68_801))) == (200, "laid")
        assert verdict(send_public(wire("VNINDEX", price=1_632.08))) == (200, "laid")


class TestFailures:
    def test_the_sixth_bans_and_the_next_request_is_told(self, market: Store) -> None:
        for failures in range(1, 6):
            assert told(send_public(LIE)) == IMPLAUSIBLE
            assert record() == ("PROBATION", 0, failures)
        assert told(send_public(LIE)) == IMPLAUSIBLE
        assert record() == ("BANNED", 0, 6)
        assert told(send_public(wire())) == BANNED
        assert send_public(wire(), address=AWAY).status_code == 200

    def test_the_ban_says_why_and_what_was_sent(self, market: Store) -> None:
        for _ in range(6):
            send_public(LIE)
        change = StatusChange.objects.get()
        assert "6 implausible" in change.reason
        assert "70731" in json.dumps(change.evidence)

    def test_good_bars_dont_hide_the_bad_one_nor_the_anchor_that_it_was_judged_by(
        self, market: Store, settings: Any
    ) -> None:
        settings.BAN_AFTER_FAILURES = 0
        assert send_public([wire("PVS")] * 20 + [LIE]).status_code == 400
        assert StatusChange.objects.get().evidence == [
            {**LIE, "anchor": 64_300, "limits": [57_870, 70_730]}
        ]

    @pytest.mark.parametrize("price", [70_731, 12_345_678_901.23])
    def test_the_first_of_many_bad_bars_are_kept_whole(
        self, price: float, market: Store, settings: Any
    ) -> None:
        settings.BAN_AFTER_FAILURES = 0
        send_public([wire(price=price)] * 1_000)
        *kept, more = StatusChange.objects.get().evidence
        judged_by = {"anchor": 64_300, "limits": [57_870, 70_730]}
        assert kept == [{**wire(price=price), **judged_by}] * 8
        assert more == "and 992 more"

    def test_a_banned_actors_requests_change_nothing(self, market: Store) -> None:
        by_operator(OperatorEvent.BAN)
        before = footprint()
        for body in (wire(), LIE, [wire()], b"{"):
            assert told(send_public(body)) == BANNED
        assert footprint() == before

    def test_a_ban_ends_what_the_actor_has_standing(self, market: Store) -> None:
        send_public(wire(price=65_000))
        send_public(wire("PVS", price=36_000), address=AWAY)
        for _ in range(6):
            send_public(LIE)
        assert served()["time"] == YESTERDAY_TEXT
        assert served("PVS")["time"] == TODAY_TEXT

    def test_a_ban_takes_the_good_bars_of_the_list_that_earned_it(self, market: Store) -> None:
        for _ in range(5):
            send_public(LIE)
        assert told(send_public([wire("PVS"), LIE, wire("ACV")])) == IMPLAUSIBLE
        assert record() == ("BANNED", 0, 6)
        assert served("PVS")["time"] == served("ACV")["time"] == YESTERDAY_TEXT
        assert market.overlays() == {}

    def test_a_ban_by_someone_else_meanwhile_is_heeded(
        self, market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = judging.judge

        def judge_during_a_ban(entries: Any) -> Any:
            by_operator(OperatorEvent.BAN)
            return judge(entries)

        monkeypatch.setattr(judging, "judge", judge_during_a_ban)
        assert told(send_public(wire())) == BANNED
        assert market.overlays() == {}

    def test_the_number_follows_the_setting(self, market: Store, settings: Any) -> None:
        settings.BAN_AFTER_FAILURES = 0
        assert told(send_public(LIE)) == IMPLAUSIBLE
        assert told(send_public(wire())) == BANNED


class TestWhatARefusalTells:
    def test_is_how_many_failures_are_left(self, market: Store) -> None:
        left = [send_public(LIE).json().get("failures_left") for _ in range(6)]
        assert left == [4, 3, 2, 1, 0, None]

    def test_is_how_many_failures_are_left_where_other_bars_were_taken(self, market: Store) -> None:
        answer = send_public([wire("PVS"), LIE])
        assert answer.status_code == 200
        assert answer.json()["failures_left"] == 4

    def test_is_until_when_a_ban_lasts(self, market: Store) -> None:
        for _ in range(5):
            send_public(LIE)
        banned = send_public(LIE)
        assert told(banned) == IMPLAUSIBLE
        until = dt.datetime.fromisoformat(banned.json()["banned_until"])
        a_day = until - dt.datetime.now(dt.UTC)
        assert dt.timedelta(hours=23, minutes=59) < a_day <= dt.timedelta(hours=24)
        refused = send_public(wire())
        assert told(refused) == BANNED
        assert refused.json()["banned_until"] == banned.json()["banned_until"]
        assert 86_000 < int(refused["Retry-After"]) <= 86_400

    def test_of_a_ban_without_end_there_is_no_time_to_come_back(self, market: Store) -> None:
        by_operator(OperatorEvent.BAN)
        refused = send_public(wire())
        assert refused.json()["banned_until"] is None
        assert not refused.has_header("Retry-After")

    def test_is_the_trading_day_for_a_bar_of_another(self, market: Store) -> None:
        refused = send_public(wire(day=TODAY.replace(day=13)))
        assert refused.json()["judged_by"] == {"trading_day": "2025-08-15"}


class TestEcho:
    """A bar equal to what is served is taken whatever it says: it is what the node says itself."""

    def test_of_a_legal_day_is_no_failure_however_far_its_prices_lie_apart(
        self, market: Store
    ) -> None:
        day: dict[str, Any] = {"open": 68_400, "high": 68_400, "low": 59_600, "close": 59_600}
        merge_core(a_bar(**day))
        for _ in range(7):
            assert verdict(send_public(wire(**day))) == (200, "unchanged")
        assert record() == ("PROBATION", 7, 0)

    def test_of_a_bar_that_its_own_reference_forbids_is_no_failure(self, market: Store) -> None:
        split: dict[str, Any] = {"price": 32_150}
        merge_core(a_bar(**split))
        assert verdict(send_public(wire(**split))) == (200, "unchanged")


class TestDaysLimits:
    def test_are_those_of_the_days_reference_however_far_the_close_has_moved(
        self, market: Store
    ) -> None:
        """A HOSE share 17.5 % over its reference can't exist."""
        merge_core(a_bar(high=70_700, close=70_700))
        assert told(send_public(wire(high=75_550, close=75_550))) == IMPLAUSIBLE
        assert verdict(send_public(wire(high=70_800, close=70_800))) == (200, "laid")

    def test_a_reference_that_moves_meanwhile_asks_to_send_again(
        self, market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = judging.judge

        def judge_before_an_adjustment(entries: Any) -> Any:
            judged = judge(entries)
            merge_core(a_bar(day=YESTERDAY, price=32_150))
            return judged

        merge_core(a_bar())
        monkeypatch.setattr(judging, "judge", judge_before_an_adjustment)
        answer = send_public(wire(price=65_000, volume=USUAL_VOLUME + 1))
        assert told(answer) == (422, "the trusted price has just changed; send the bar again")


class TestOfNoUse:
    CASES = [
        (wire("ZZZ"), "unknown symbol"),
        (wire("FPT"), "no trusted close to judge it by yet"),
        (wire(day=YESTERDAY), "not the current trading day"),
        (wire(day=TODAY.replace(day=16)), "not the current trading day"),
        (wire(volume=USUAL_VOLUME - 1), "volume is smaller than what is served"),
        (wire(volume=50 * USUAL_VOLUME + 1), "volume is far beyond the symbol's usual"),
    ]

    @pytest.mark.parametrize(("bar", "detail"), CASES)
    @pytest.mark.parametrize("price", [None, 1e11])
    def test_is_told_and_counts_nothing(
        self, bar: dict[str, Any], detail: str, price: float | None, market: Store
    ) -> None:
        merge_core(a_bar())
        before = footprint()
        if price:
            bar = {**bar, **dict.fromkeys(("open", "high", "low", "close"), price)}
        assert told(send_public(bar)) == (422, detail)
        assert footprint() == before
        actors.flush()
        assert not Actor.objects.exists()

    def test_a_volume_smaller_than_an_overlays_is_of_no_use(self, market: Store) -> None:
        send_public(wire(volume=USUAL_VOLUME + 5))
        answer = send_public(wire(volume=USUAL_VOLUME + 4), address=AWAY)
        assert told(answer) == (422, "volume is smaller than what is served")

    def test_the_largest_usual_volume_is_of_use(self, market: Store) -> None:
        assert verdict(send_public(wire(volume=50 * USUAL_VOLUME))) == (200, "laid")

    def test_a_volume_far_beyond_a_new_symbols_first_is_of_no_use(self, market: Store) -> None:
        send_public(wire())
        merge_core(a_bar("FPT", volume=10))  # after this process has looked at the histories
        answer = send_public(wire("FPT", volume=501))
        assert told(answer) == (422, "volume is far beyond the symbol's usual")

    def test_a_trusted_close_that_moves_meanwhile_asks_to_send_again(
        self, market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = judging.judge

        def judge_before_an_update(entries: Any) -> Any:
            judged = judge(entries)
            merge_core(a_bar(price=64_400))
            return judged

        monkeypatch.setattr(judging, "judge", judge_before_an_update)
        answer = send_public(wire(price=70_730))
        assert told(answer) == (422, "the trusted price has just changed; send the bar again")
        assert served()["close"] == 64_400


class TestList:
    def test_each_bar_gets_its_answer_and_good_ones_are_taken(self, market: Store) -> None:
        answer = send_public([wire(), wire("PVS", price=99_000), wire("ZZZ"), 7, wire("ACV")])
        assert answer.status_code == 200
        assert answer.json()["results"] == [
            {"symbol": "VCB", "verdict": "laid"},
            {
                "symbol": "PVS",
                "verdict": "refused",
                "code": "implausible_price",
                "detail": "Implausible price change",
                "judged_by": {
                    "price": {"name": "close", "value": 99_000},
                    "limits": [31_500, 38_500],
                    "anchor": 35_000,
                    "day": "2025-08-15",
                    "served_volume": USUAL_VOLUME,
                },
            },
            {
                "symbol": "ZZZ",
                "verdict": "refused",
                "code": "unknown_symbol",
                "detail": "unknown symbol",
            },
            {
                "symbol": None,
                "verdict": "refused",
                "code": "invalid_bar",
                "detail": "a bar must be a JSON object.",
            },
            {"symbol": "ACV", "verdict": "laid"},
        ]
        assert served()["time"] == served("ACV")["time"] == TODAY_TEXT
        assert served("PVS")["time"] == YESTERDAY_TEXT

    def test_is_one_failure_if_any_bar_is_implausible(self, market: Store) -> None:
        send_public([wire("PVS"), LIE, LIE, LIE, wire("ACV")])
        assert record() == ("PROBATION", 0, 1)

    def test_is_counted_bar_by_bar_for_the_chart(self, market: Store) -> None:
        send_public([wire("PVS"), LIE, LIE, LIE, wire("ZZZ")])
        send_public([wire("PVS"), wire("ACV"), wire("ZZZ")])
        actors.flush()
        sums = HourlyCount.objects.aggregate(Sum("accepted"), Sum("refused"))
        assert sums == {"accepted__sum": 3, "refused__sum": 3}

    def test_is_one_success_if_none_is(self, market: Store) -> None:
        send_public([wire("PVS"), wire("ZZZ"), 7, wire("ACV")])
        assert record() == ("PROBATION", 1, 0)

    def test_of_no_use_counts_nothing(self, market: Store) -> None:
        assert told(send_public([wire("ZZZ"), wire("FPT")])) == (422, "unknown symbol")
        assert told(send_public([7, wire("FPT")]))[0] == 400
        actors.flush()
        assert not Actor.objects.exists()

    def test_that_is_refused_whole_names_the_failure(self, market: Store) -> None:
        assert told(send_public([wire("ZZZ"), 7, LIE])) == IMPLAUSIBLE
        assert record() == ("PROBATION", 0, 1)

    def test_is_one_request_for_the_limit(
        self, market: Store, limiter_clock: LimiterClock, settings: Any
    ) -> None:
        settings.PUBLIC_RATE = "2/2s"
        statuses = flood(lambda: send_public([wire()] * 50), 3)
        assert statuses == [200, 200, 429]


class TestTrustWindow:
    def test_never_opened(self, empty_market: Store) -> None:
        before = footprint()
        answer = send_public(wire())
        assert told(answer) == UNTRUSTED
        assert int(answer["Retry-After"]) > 0
        assert footprint() == before

    @pytest.mark.parametrize(("age", "status"), [(290, 200), (301, 503)])
    def test_ends_300_seconds_after_the_last_trusted_update(
        self, age: float, status: int, empty_market: Store
    ) -> None:
        empty_market.merge([a_bar(day=YESTERDAY)], Authority.FOLLOWED, age=age)
        before = footprint()
        answer = send_public(wire())
        assert answer.status_code == status
        if status == 503:
            assert told(answer) == UNTRUSTED
            assert footprint() == before

    def test_follows_the_setting(self, empty_market: Store, settings: Any) -> None:
        empty_market.merge([a_bar(day=YESTERDAY)], Authority.FOLLOWED, age=50)
        assert send_public(wire()).status_code == 200
        settings.TRUST_WINDOW = 40
        assert told(send_public(wire())) == UNTRUSTED

    def test_opens_again_with_a_trusted_update(self, empty_market: Store) -> None:
        empty_market.merge([a_bar(day=YESTERDAY)], Authority.FOLLOWED, age=301)
        assert told(send_public(wire())) == UNTRUSTED
        send_trusted(wire("PVS"))
        assert send_public(wire()).status_code == 200


class TestRate:
    def test_is_10_a_second_in_bursts_of_20(
        self, market: Store, limiter_clock: LimiterClock
    ) -> None:
        for _ in range(3):
            assert flood(lambda: send_public(wire()), 20) == [200] * 20
            answer = send_public(wire())
            assert answer.status_code == 429
            assert 1 <= int(answer["Retry-After"]) <= 2
            assert "detail" in answer.json()
            limiter_clock.now += 2

    def test_is_each_actors_own(self, market: Store, limiter_clock: LimiterClock) -> None:
        assert flood(lambda: send_public(wire()), 21)[-1] == 429
        assert send_public(wire(), address=AWAY).status_code == 200

    def test_of_ipv6_is_the_64s(self, market: Store, limiter_clock: LimiterClock) -> None:
        addresses = (f"2001:db8:1:2::{n:x}" for n in range(1, 99))
        statuses = flood(lambda: send_public(wire(), address=next(addresses)), 21)
        assert statuses == [200] * 20 + [429]
        assert send_public(wire(), address="2001:db8:1:3::1").status_code == 200

    def test_of_a_trusted_actor_is_higher(
        self, market: Store, limiter_clock: LimiterClock, settings: Any
    ) -> None:
        settings.TRUSTED_RATE = "30/2s"
        by_operator(OperatorEvent.TRUST)
        assert send_public(wire()).status_code == 200  # from now on its standing is remembered
        assert flood(lambda: send_public(wire()), 31) == [200] * 30 + [429]

    def test_of_a_trusted_actor_stays_so_when_its_standing_is_asked_again(
        self, market: Store, limiter_clock: LimiterClock
    ) -> None:
        by_operator(OperatorEvent.TRUST)
        for _ in range(2):
            assert flood(lambda: send_public(wire()), 25) == [200] * 25
            cache.delete(f"reputation:standing:{HOME}")

    def test_refused_requests_count(self, market: Store, limiter_clock: LimiterClock) -> None:
        assert flood(lambda: send_public(b"{"), 21) == [400] * 20 + [429]

    def test_a_limited_request_changes_nothing(
        self, market: Store, limiter_clock: LimiterClock
    ) -> None:
        flood(lambda: send_public(b"{"), 20)
        before = footprint()
        for body in (wire(), LIE, [LIE]):
            assert send_public(body).status_code == 429
        assert footprint() == before

    @pytest.mark.parametrize("banned", [True, False])
    def test_a_flood_doesnt_touch_the_database(
        self,
        banned: bool,
        market: Store,
        limiter_clock: LimiterClock,
        django_assert_num_queries: Any,
    ) -> None:
        if banned:
            by_operator(OperatorEvent.BAN)
        flood(lambda: send_public(wire()), 1 if banned else 20)
        with django_assert_num_queries(0):
            statuses = flood(lambda: send_public(wire()), 25)
        assert statuses == ([403] * 19 + [429] * 6 if banned else [429] * 25)

    def test_a_flood_that_nothing_is_remembered_of_doesnt_either(
        self, market: Store, limiter_clock: LimiterClock, django_assert_num_queries: Any
    ) -> None:
        """As while SQL is away: then no standing is ever remembered."""
        with database_away():
            statuses = flood(lambda: send_public(wire()), 26)
        assert statuses == [503] * 20 + [429] * 6
        with django_assert_num_queries(0):
            assert send_public(wire()).status_code == 429


class TestOrder:
    """Cheapest first: size, rate, ban, trust window, schema, use, plausibility."""

    def test_size_comes_before_rate_and_ban(
        self, market: Store, limiter_clock: LimiterClock
    ) -> None:
        by_operator(OperatorEvent.BAN)
        flood(lambda: send_public(wire()), 20)
        assert told(send_public(b" " * 1_000_001))[0] == 413

    def test_rate_comes_before_ban(self, market: Store, limiter_clock: LimiterClock) -> None:
        by_operator(OperatorEvent.BAN)
        assert flood(lambda: send_public(wire()), 21) == [403] * 20 + [429]

    def test_ban_comes_before_the_window(self, empty_market: Store) -> None:
        by_operator(OperatorEvent.BAN)
        assert told(send_public(wire())) == BANNED

    def test_ban_comes_before_schema(self, market: Store) -> None:
        by_operator(OperatorEvent.BAN)
        assert told(send_public(b"{")) == BANNED
        assert told(send_public([wire()] * 1_001)) == BANNED
        assert told(send_public(wire(), content_type="text/plain")) == BANNED

    def test_the_window_comes_before_schema(self, empty_market: Store) -> None:
        assert told(send_public(b"{")) == UNTRUSTED
        assert told(send_public(wire(), content_type="text/plain")) == UNTRUSTED

    def test_schema_comes_before_use(self, market: Store) -> None:
        assert told(send_public(wire("ZZZ", low=99_999)))[0] == 400

    def test_use_comes_before_plausibility(self, market: Store) -> None:
        assert told(send_public(wire("ZZZ", price=1e11))) == (422, "unknown symbol")


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "The body is empty"),
            (b"{", "The body isn't JSON."),
            (b"[]", "The list is empty"),
            (b'"VCB"', "The body must be one bar or a list of bars."),
            (wire(time="today"), "time must be an RFC 3339 time"),
            (wire(close=True), "close must be a number."),
            (wire(low=64_400), "low must not be above high."),
            (wire(volume=-1), "volume must be from 0 to 2^53 - 1."),
            (wire(open=64_301), "open must lie between low and high."),
            ([wire(open=64_301)], "open must lie between low and high."),
        ],
    )
    def test_a_body_that_is_no_gossip(self, body: object, expected: str, market: Store) -> None:
        before = footprint()
        status, detail = told(send_public(body))
        assert status == 400
        assert detail.startswith(expected)
        assert footprint() == before

    def test_more_than_a_megabyte_or_a_thousand_bars(self, market: Store) -> None:
        before = footprint()
        assert told(send_public(b" " * 1_000_001))[0] == 413
        assert told(send_public(wire(), CONTENT_LENGTH="1000001"))[0] == 413
        assert told(send_public([wire()] * 1_001))[0] == 413
        assert footprint() == before
        assert send_public(json.dumps(wire()).encode().ljust(1_000_000)).status_code == 200
        assert send_public([wire()] * 1_000).status_code == 200

    @pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", ""])
    def test_another_content_type(self, content_type: str, market: Store) -> None:
        before = footprint()
        answer = send_public(wire(), content_type=content_type)
        assert told(answer) == (415, "Send Content-Type: application/json")
        assert footprint() == before

    def test_another_method(self, market: Store) -> None:
        assert told(CLIENT.get("/public/gossip"))[0] == 405

    def test_a_page_can_have_none_of_its_visitors_send(self, market: Store) -> None:
        """A browser asks first before it posts JSON elsewhere, and isn't allowed to."""
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = CLIENT.options("/public/gossip", headers=asked)
        assert told(answer) == (405, 'Method "OPTIONS" not allowed.')
        assert "Access-Control-Allow-Origin" not in answer


class TestClient:
    """Who the actor is."""

    def forwarded(self, hops: str, *, proxy: str = "10.0.0.9") -> Any:
        return send_public(LIE, address=proxy, headers={"X-Forwarded-For": hops})

    def test_headers_are_ignored_without_proxies(self, market: Store) -> None:
        self.forwarded("198.51.100.7", proxy=HOME)
        assert list(Actor.objects.values_list("address", flat=True)) == [HOME]

    def test_headers_dont_evade_the_limit(self, market: Store, limiter_clock: LimiterClock) -> None:
        hops = iter(range(99))
        flood_of_names = flood(
            lambda: send_public(wire(), headers={"X-Forwarded-For": f"192.0.2.{next(hops)}"}), 21
        )
        assert flood_of_names == [200] * 20 + [429]

    def test_a_trusted_proxy_is_believed(self, market: Store, settings: Any) -> None:
        settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
        self.forwarded("198.51.100.7")
        assert record("198.51.100.7") == ("PROBATION", 0, 1)

    def test_what_the_client_wrote_itself_is_not(self, market: Store, settings: Any) -> None:
        settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
        self.forwarded("192.0.2.1, 10.0.0.3, 198.51.100.7, 10.0.0.4")
        assert list(Actor.objects.values_list("address", flat=True)) == ["198.51.100.7"]

    def test_a_peer_that_is_no_proxy_is_the_client(self, market: Store, settings: Any) -> None:
        settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
        self.forwarded("198.51.100.7", proxy=HOME)
        assert list(Actor.objects.values_list("address", flat=True)) == [HOME]

    @pytest.mark.parametrize("hops", ["", "10.0.0.3", "unknown", "198.51.100.7, "])
    def test_a_proxy_that_names_no_client_is_refused(
        self, hops: str, market: Store, settings: Any
    ) -> None:
        settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
        before = footprint()
        status, detail = told(self.forwarded(hops))
        assert status == 400
        assert "proxy" in detail or "proxies" in detail
        assert footprint() == before

    def test_a_server_that_knows_no_peer_is_refused(self, market: Store) -> None:
        assert told(send_public(wire(), address=""))[0] == 400


class TestPublicBars:
    def test_are_served_at_once_by_default(self, market: Store, settings: Any) -> None:
        assert settings.PUBLIC_BARS == "immediate"
        merge_core(a_bar())
        assert verdict(send_public(wire(price=65_000))) == (200, "laid")

    @pytest.mark.parametrize(
        ("cycle", "age", "expected"),
        [
            (5, 0, "judged"),
            (5, 55, "judged"),
            (5, 61, "laid"),
            (100, 190, "judged"),
            (100, 201, "laid"),
        ],
    )
    def test_when_late_are_served_while_the_trusted_bar_is_late(
        self,
        cycle: float,
        age: int,
        expected: str,
        market: Store,
        clean_server: redis.Redis,
        settings: Any,
    ) -> None:
        settings.PUBLIC_BARS, settings.CYCLE = "when_late", cycle
        merge_core(a_bar())
        make_late(clean_server, seconds=age)
        assert verdict(send_public(wire(price=65_000))) == (200, expected)
        assert served()["close"] == (65_000 if expected == "laid" else 64_300)
        assert record() == ("PROBATION", 1, 0)

    @pytest.mark.parametrize(
        ("time", "age", "expected"),
        [
            ("20:00:00", 61, "judged"),  # each 300 s a cycle: none is late on a node that works
            ("20:00:00", 590, "judged"),
            ("20:00:00", 601, "laid"),
            ("09:00:50", 301, "judged"),  # the cycle that office hours begin with is under way
            ("09:01:10", 61, "laid"),
            ("15:00:10", 61, "judged"),
        ],
    )
    def test_outside_office_hours_late_is_two_of_their_cycles(
        self,
        time: str,
        age: int,
        expected: str,
        market: Store,
        clean_server: redis.Redis,
        settings: Any,
    ) -> None:
        settings.PUBLIC_BARS = "when_late"
        settings.DEBUG_SYSTEM_TIME = dt.datetime.fromisoformat(f"{TODAY}T{time}+07:00")
        forget()
        merge_core(a_bar())
        make_late(clean_server, seconds=age)
        assert verdict(send_public(wire(price=65_000))) == (200, expected)

    def test_of_a_public_node_late_is_two_contacts_at_any_time(
        self, market: Store, clean_server: redis.Redis, settings: Any
    ) -> None:
        settings.PUBLIC_BARS = "when_late"
        settings.CYCLE = settings.CYCLE_OUTSIDE_HOURS = settings.TRUST_WINDOW / 2
        assert laying.late_after() == settings.TRUST_WINDOW

    def test_never_are_judged_only(
        self, market: Store, clean_server: redis.Redis, settings: Any
    ) -> None:
        settings.PUBLIC_BARS = "never"
        make_late(clean_server, seconds=10_000)
        position = market.state().position
        assert verdict(send_public(wire(price=65_000))) == (200, "judged")
        assert told(send_public(LIE)) == IMPLAUSIBLE
        assert market.state().position == position
        assert record() == ("PROBATION", 1, 1)


class TestAway:
    def refuses(self, answer: Any) -> None:
        status, detail = told(answer)
        assert status == 503
        assert "can't be reached" in detail
        assert int(answer["Retry-After"]) > 0

    def test_without_the_store(self, market: Store, settings: Any) -> None:
        before = footprint()
        with store_away(settings):
            self.refuses(send_public(wire()))
            self.refuses(send_public(LIE))
        assert footprint() == before

    def test_when_the_store_is_lost(self, market: Store) -> None:
        before = footprint()
        with store_lost():
            self.refuses(send_public(wire()))
        assert footprint() == before
        assert send_public(wire()).status_code == 200

    def test_without_the_cache(self, market: Store, settings: Any) -> None:
        before = footprint()
        with cache_away(settings):
            self.refuses(send_public(wire()))
        assert footprint() == before

    def test_without_the_database(self, market: Store) -> None:
        before = footprint()
        with database_away():
            self.refuses(send_public(wire(price=65_000)))
            self.refuses(send_public(LIE))
        assert footprint() == before

    def test_without_the_database_but_with_a_cached_standing(self, market: Store) -> None:
        """What is plausible waits in the cache to be counted; a failure must be written down."""
        send_public(b"{")
        with database_away():
            before = wiring.store().overlays()
            self.refuses(send_public([wire("PVS"), LIE]))
            assert wiring.store().overlays() == before
            assert verdict(send_public(wire(price=65_000))) == (200, "laid")
        assert record() == ("PROBATION", 1, 0)


@many_bodies
@given(body=bodies)
def test_whatever_is_sent_nothing_breaks_and_only_plausible_bars_are_served(
    body: object, market: Store, settings: Any
) -> None:
    settings.PUBLIC_RATE, settings.BAN_AFTER_FAILURES = "100000/s", 1_000_000
    assert 200 <= send_public(body).status_code < 500
    for symbol, overlay in wiring.store().overlays().items():
        bar = parse(json.loads(overlay.json))
        assert satisfies_the_rules(bar)
        assert (bar.symbol, bar.day) == (symbol, TODAY)
        assert all(57_870 <= price <= 70_730 for price in bar.prices)
    assert {symbol: newest.day for symbol, newest in wiring.store().newest().items()} == {
        symbol: a_bar(day=YESTERDAY).epoch for symbol in ANCHORS
    }


class TestFirstDays:
    """Some days have wider limits than others: 20 % for a HOSE share."""

    WIDE = wire(price=77_000)  # 19.8 % above yesterday's close

    def test_an_ordinary_day_has_none(self, market: Store) -> None:
        assert told(send_public(self.WIDE)) == IMPLAUSIBLE

    def test_after_25_trading_days_of_silence(self, empty_market: Store) -> None:
        merge_core(a_bar(day=trading_days_before(TODAY, 27)[0]), a_bar("PVS", day=YESTERDAY))
        assert verdict(send_public(self.WIDE)) == (200, "laid")
        assert told(send_public(wire(price=78_000))) == IMPLAUSIBLE

    def test_not_after_a_shorter_silence(self, empty_market: Store) -> None:
        merge_core(a_bar(day=trading_days_before(TODAY, 26)[0]))
        assert told(send_public(self.WIDE)) == IMPLAUSIBLE

    def test_of_a_symbol_that_has_moved_to_another_exchange(self, market: Store) -> None:
        with lead(market) as fence:
            market.note_listings({"VCB": "UPCOM", "PVS": "HNX"}, fence=fence)
            assert market.note_listings({"VCB": "HOSE", "PVS": "HNX"}, fence=fence) == ["VCB"]
        assert verdict(send_public(self.WIDE)) == (200, "laid")
        assert told(send_public(wire("PVS", price=41_000))) == IMPLAUSIBLE

    def test_not_once_it_has_traded_there(self, market: Store) -> None:
        with lead(market) as fence:
            market.note_listings({"VCB": "UPCOM"}, fence=fence)
            market.clock = MarketClock(
                frozen_at=dt.datetime.combine(trading_days_before(TODAY, 2)[0], dt.time(5), dt.UTC)
            )
            market.note_listings({"VCB": "HOSE"}, fence=fence)
        market.clock = wiring.market_clock()
        assert told(send_public(self.WIDE)) == IMPLAUSIBLE

    def test_of_a_symbol_that_was_always_there(self, market: Store) -> None:
        with lead(market) as fence:
            for _ in range(2):
                assert market.note_listings({"VCB": "HOSE"}, fence=fence) == []
        assert told(send_public(self.WIDE)) == IMPLAUSIBLE

    def test_its_own_when_its_history_was_loaded_from_before_it(self, empty_market: Store) -> None:
        with lead(empty_market) as fence:
            for symbol, start in (("VCB", dt.date(2024, 1, 1)), ("PVS", TODAY)):
                empty_market.replace_series(
                    symbol,
                    [a_bar(symbol)],
                    Authority.CORE,
                    fence=fence,
                    history_start=epoch_of(start),
                )
        bigger = USUAL_VOLUME + 1
        assert verdict(send_public(wire(price=77_000, volume=bigger))) == (200, "laid")
        assert told(send_public(wire("PVS", price=44_000, volume=bigger))) == IMPLAUSIBLE
