import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.doors.plausibility import Known, Objection, objection
from gossip.wire import DETAILS, Code
from tests.support.doors import TODAY, YESTERDAY, a_bar
from tickers.bands import Range
from tickers.bar import Bar, number
from tickers.universe import Exchange


def known(anchor: str = "64300", exchange: Exchange | None = Exchange.HOSE, **other: Any) -> Known:
    """A symbol that closed at ``anchor`` yesterday, and of which half a million shares are served
    today at that price."""
    price = float(anchor)
    served = a_bar(price=price, volume=500_000)
    at = Range.at(Decimal(anchor))
    facts = {"reference": at, "shown": None, "served": served, "largest_volume": 1_000_000}
    return Known(anchor=at.low, exchange=exchange, **{**facts, **other})


VCB = known()


def judge(bar: Bar, of: Known | None = VCB, *, max_change: float = 0.10) -> Code | None:
    found = judged(bar, of, max_change=max_change)
    return found.code if found else None


def judged(bar: Bar, of: Known | None = VCB, *, max_change: float = 0.10) -> Objection | None:
    return objection(bar, of, trading_day=TODAY, max_change=max_change)


class TestOfNoUse:
    @pytest.mark.parametrize(
        ("bar", "of", "expected"),
        [
            (a_bar(), None, Code.UNKNOWN_SYMBOL),
            (a_bar(day=YESTERDAY), VCB, Code.OTHER_DAY),
            (a_bar(day=TODAY + dt.timedelta(days=1)), VCB, Code.OTHER_DAY),
            (a_bar(), replace(VCB, anchor=None), Code.NO_ANCHOR),
            (a_bar(), replace(VCB, is_suspect=True), Code.SUSPECT_SYMBOL),
            (a_bar(volume=499_999), VCB, Code.SMALLER_VOLUME),
            (a_bar(volume=50_000_001), VCB, Code.HUGE_VOLUME),
        ],
    )
    def test_is_nobodys_fault_whatever_the_prices(
        self, bar: Bar, of: Known | None, expected: Code
    ) -> None:
        assert judge(bar, of) is expected
        absurd = replace(bar, open=1e9, high=1e9, low=1e9, close=1e9)
        assert judge(absurd, of) is expected
        assert not expected.is_failure

    @pytest.mark.parametrize("volume", [500_000, 50_000_000])
    def test_volumes_at_the_limits_are_of_use(self, volume: int) -> None:
        assert judge(a_bar(volume=volume)) is None

    def test_where_no_volume_is_known_any_is_usual(self) -> None:
        assert judge(a_bar(volume=10**12), replace(VCB, largest_volume=0)) is None

    def test_a_volume_is_told_beside_the_one_that_is_served(self) -> None:
        found = judged(a_bar(volume=499_999))
        assert found is not None
        assert found.values == {"volume": 499_999, "served_volume": 500_000}


class TestEcho:
    def test_a_bar_equal_to_what_is_served_is_judged_by_nothing_else(self) -> None:
        far = a_bar(price=200_000, volume=10**12)
        assert judge(far) is not None
        assert judge(far, replace(VCB, served=far)) is None


class TestImplausible:
    def test_is_a_failure_with_the_networks_words(self) -> None:
        verdict = judge(a_bar(price=70_730.01))
        assert verdict is Code.IMPLAUSIBLE_PRICE
        assert verdict.is_failure
        assert DETAILS[verdict] == "Implausible price change"

    @pytest.mark.parametrize(
        ("exchange", "anchor", "low", "high"),
        [
            (Exchange.HOSE, "64300", 57_870, 70_730),
            (Exchange.HNX, "35000", 31_500, 38_500),
            (Exchange.INDEX, "1659.7", 1493.73, 1825.67),
            (Exchange.INDEX, "1600.08", 1440.072, 1760.088),
            (Exchange.UPCOM, "100000", 85_000, 115_000),
            (None, "0.1", 0.09, 0.11),
        ],
    )
    def test_begins_beyond_the_band_of_the_close_exactly(
        self, exchange: Exchange | None, anchor: str, low: float, high: float
    ) -> None:
        of = known(anchor, exchange)
        assert judge(a_bar(price=low), of) is None
        assert judge(a_bar(price=high), of) is None
        assert judge(a_bar(price=low - 0.001), of) is Code.IMPLAUSIBLE_PRICE
        assert judge(a_bar(price=high + 0.001), of) is Code.IMPLAUSIBLE_PRICE

    @pytest.mark.parametrize(
        "fields",
        [
            {"open": 70_831, "high": 70_831},
            {"open": 57_769, "low": 57_769},
            {"high": 70_831},
            {"low": 57_769},
        ],
    )
    def test_one_price_beyond_the_days_limits_is_enough(self, fields: dict[str, Any]) -> None:
        assert judge(a_bar(**fields)) is Code.IMPLAUSIBLE_PRICE

    @pytest.mark.parametrize("fields", [{"high": 70_830}, {"low": 57_770}])
    def test_the_limits_are_one_price_step_wider_than_the_band(
        self, fields: dict[str, Any]
    ) -> None:
        assert judge(a_bar(**fields)) is None

    def test_follows_the_setting_down_to_the_exchanges_own_width(self) -> None:
        assert judge(a_bar(price=69_000), max_change=0.02) is Code.IMPLAUSIBLE_PRICE
        assert judge(a_bar(price=68_800), max_change=0.02) is None
        assert judge(a_bar(price=77_160), max_change=0.2) is None

    def test_says_which_price_lies_outside_which_limits(self) -> None:
        found = judged(a_bar(high=90_000))
        assert found is not None
        assert found.values["price"] == {"name": "high", "value": 90_000.0}
        assert found.values["limits"] == [57_770.0, 70_830.0]
        assert found.values["anchor"] == 64_300.0
        assert found.values["day"] == "2025-08-15"
        assert found.values["served_volume"] == 500_000
        assert "hint" not in found.values

    @pytest.mark.parametrize("price", [64.3, 60, 70.7])
    def test_names_prices_in_thousands_as_the_likely_mistake(self, price: float) -> None:
        found = judged(a_bar(price=price))
        assert found is not None
        assert "1/1000" in str(found.values["hint"])


class TestReference:
    """The day's limits stand where the day began, however far the close has moved."""

    def test_a_close_near_to_the_anchor_is_refused_beyond_the_days_limits(self) -> None:
        today = Range(Decimal(64_300), Decimal(70_700))
        risen = known("70700", reference=Range.at(Decimal(64_300)), shown=today, served=None)
        assert judge(a_bar(price=70_700, open=64_300, low=64_300), risen) is None
        assert judge(a_bar(price=75_550, open=64_300, low=64_300), risen) is Code.IMPLAUSIBLE_PRICE

    def test_a_legal_day_is_judged_by_its_reference_not_by_its_own_close(self) -> None:
        """VCB from its ceiling to its floor: 12.9 % from the high to the close."""
        day = a_bar(open=68_400, high=68_400, low=59_600, close=59_600, volume=900_000)
        assert judge(day, known("64000", served=None)) is None

    def test_a_close_inside_what_a_trusted_source_has_shown_is_plausible(self) -> None:
        shown = Range(Decimal(59_600), Decimal(68_400))
        fallen = known("59600", reference=Range.at(Decimal(64_000)), shown=shown, served=None)
        back = a_bar(open=68_400, high=68_400, low=59_600, close=68_300)
        assert judge(back, fallen) is None
        assert judge(back, replace(fallen, shown=None)) is Code.IMPLAUSIBLE_PRICE

    def test_upcom_is_judged_by_all_of_yesterday_before_todays_first_trusted_bar(self) -> None:
        yesterday = Range(Decimal(100_000), Decimal(112_000))
        acv = known("100000", Exchange.UPCOM, reference=yesterday, served=None)
        high = a_bar(price=128_800)
        assert judge(high, acv) is None
        assert judge(a_bar(price=128_801), acv) is Code.IMPLAUSIBLE_PRICE
        opened = replace(acv, shown=Range(Decimal(100_000), Decimal(100_000)))
        assert judge(high, opened) is Code.IMPLAUSIBLE_PRICE

    def test_a_first_day_is_wider(self) -> None:
        twenty_up = a_bar(price=77_160)
        assert judge(twenty_up) is Code.IMPLAUSIBLE_PRICE
        assert judge(twenty_up, replace(VCB, first_day=True)) is None

    def test_without_a_reference_the_anchor_serves_as_one(self) -> None:
        new = replace(VCB, reference=None)
        assert judge(a_bar(price=70_730), new) is None
        assert judge(a_bar(high=70_831), new) is Code.IMPLAUSIBLE_PRICE


@given(
    anchor=st.decimals(min_value=1, max_value=10**7, places=2),
    permille=st.integers(min_value=0, max_value=200),
    up=st.booleans(),
)
def test_the_band_of_the_close_is_exact_in_decimals(
    anchor: Decimal, permille: int, up: bool
) -> None:
    """Also where floats make 10 % a little more: 1659.7 * 1.1 is 1825.6700000000003."""
    move = anchor * permille / 1000
    price = float(anchor + move if up else anchor - move)
    text = number(float(anchor))
    plausible = judge(a_bar(price=price), known(text, Exchange.INDEX, served=None)) is None
    assert plausible == (permille <= 100)
