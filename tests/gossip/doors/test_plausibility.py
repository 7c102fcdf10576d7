import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.doors.plausibility import Known, band, objection, within_band
from gossip.wire import DETAILS, Code
from tests.support.doors import TODAY, YESTERDAY, a_bar
from tickers.bar import Bar, number
from tickers.universe import Exchange

VCB = Known(anchor="64300", served_volume=500_000, largest_volume=1_000_000, exchange=Exchange.HOSE)


def judge(bar: Bar, known: Known | None = VCB, *, max_change: float = 0.10) -> Code | None:
    return objection(bar, known, trading_day=TODAY, max_change=max_change)


class TestOfNoUse:
    @pytest.mark.parametrize(
        ("bar", "known", "expected"),
        [
            (a_bar(), None, Code.UNKNOWN_SYMBOL),
            (a_bar(day=YESTERDAY), VCB, Code.OTHER_DAY),
            (a_bar(day=TODAY + dt.timedelta(days=1)), VCB, Code.OTHER_DAY),
            (a_bar(), replace(VCB, anchor=None), Code.NO_ANCHOR),
            (a_bar(volume=499_999), VCB, Code.SMALLER_VOLUME),
            (a_bar(volume=50_000_001), VCB, Code.HUGE_VOLUME),
        ],
    )
    def test_is_nobodys_fault_whatever_the_prices(
        self, bar: Bar, known: Known | None, expected: Code
    ) -> None:
        assert judge(bar, known) is expected
        absurd = replace(bar, open=1e9, high=1e9, low=1e9, close=1e9)
        assert judge(absurd, known) is expected
        assert not expected.is_failure

    @pytest.mark.parametrize("volume", [500_000, 50_000_000])
    def test_volumes_at_the_limits_are_of_use(self, volume: int) -> None:
        assert judge(a_bar(volume=volume)) is None

    def test_where_no_volume_is_known_any_is_usual(self) -> None:
        assert judge(a_bar(volume=10**12), replace(VCB, largest_volume=0)) is None


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
    def test_begins_beyond_the_band_exactly(
        self, exchange: Exchange | None, anchor: str, low: float, high: float
    ) -> None:
        known = replace(VCB, exchange=exchange, anchor=anchor)
        assert judge(a_bar(price=low), known) is None
        assert judge(a_bar(price=high), known) is None
        assert judge(a_bar(price=low - 0.001), known) is Code.IMPLAUSIBLE_PRICE
        assert judge(a_bar(price=high + 0.001), known) is Code.IMPLAUSIBLE_PRICE

    @pytest.mark.parametrize(
        "fields", [{"open": 70_731}, {"open": 57_869}, {"high": 70_731}, {"low": 57_869}]
    )
    def test_one_price_is_enough(self, fields: dict[str, Any]) -> None:
        assert judge(a_bar(**fields)) is Code.IMPLAUSIBLE_PRICE

    def test_follows_the_setting(self) -> None:
        assert judge(a_bar(price=66_000), max_change=0.02) is Code.IMPLAUSIBLE_PRICE
        assert judge(a_bar(price=77_160), max_change=0.2) is None


class TestBand:
    @pytest.mark.parametrize("exchange", [Exchange.HOSE, Exchange.HNX, Exchange.INDEX, None])
    def test_is_the_setting(self, exchange: Exchange | None) -> None:
        assert band(exchange, 0.10) == Decimal("0.10")

    def test_of_upcom_is_wider(self) -> None:
        assert band(Exchange.UPCOM, 0.10) == Decimal("0.15")

    def test_is_never_narrower_than_the_setting(self) -> None:
        assert band(Exchange.UPCOM, 0.3) == Decimal("0.3")


@given(
    anchor=st.decimals(min_value=1, max_value=10**7, places=2),
    permille=st.integers(min_value=0, max_value=200),
    up=st.booleans(),
)
def test_the_band_is_exact_in_decimals(anchor: Decimal, permille: int, up: bool) -> None:
    """Also where floats make 10 % a little more: 1659.7 * 1.1 is 1825.6700000000003."""
    move = anchor * permille / 1000
    price = float(anchor + move if up else anchor - move)
    bar = a_bar(price=price)
    text = Decimal(number(float(anchor)))
    assert within_band(bar, text, Decimal("0.10")) == (permille <= 100)
