"""How far a symbol's prices may move in one day."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.bands import (
    Range,
    ceiling_and_floor,
    day_limits,
    decimal,
    price_step,
    reference_range,
    width,
)
from tickers.universe import Exchange

USUAL = Decimal("0.10")
HOSE, HNX, UPCOM, INDEX = Exchange

prices = st.decimals(min_value="0.01", max_value=10**7, places=2, allow_nan=False)
exchanges = st.sampled_from([*Exchange, None])


class TestWidth:
    @pytest.mark.parametrize(
        ("exchange", "usually", "on_a_first_day"),
        [
            (HOSE, "0.10", "0.20"),
            (HNX, "0.10", "0.30"),
            (UPCOM, "0.15", "0.40"),
            (INDEX, "0.10", "0.10"),
            (None, "0.10", "0.10"),
        ],
    )
    def test_is_the_exchanges_or_the_networks_where_that_is_wider(
        self, exchange: Exchange | None, usually: str, on_a_first_day: str
    ) -> None:
        assert width(exchange, usual=USUAL) == Decimal(usually)
        assert width(exchange, usual=USUAL, first_day=True) == Decimal(on_a_first_day)

    def test_of_a_node_that_allows_less_is_still_the_exchanges(self) -> None:
        assert width(HOSE, usual=Decimal("0.02")) == Decimal("0.07")
        assert width(INDEX, usual=Decimal("0.02")) == Decimal("0.02")

    @given(exchange=exchanges, usual=st.decimals("0.001", 1, places=3), first_day=st.booleans())
    def test_is_never_less_than_the_setting(
        self, exchange: Exchange | None, usual: Decimal, first_day: bool
    ) -> None:
        assert width(exchange, usual=usual, first_day=first_day) >= usual


class TestPriceStep:
    @pytest.mark.parametrize(
        ("exchange", "price", "step"),
        [
            (HOSE, "9990", 10),
            (HOSE, "10000", 50),
            (HOSE, "49950", 50),
            (HOSE, "50000", 100),
            (HNX, "5000", 100),
            (UPCOM, "200000", 100),
            (None, "5000", 100),
        ],
    )
    def test_is_the_exchanges(self, exchange: Exchange | None, price: str, step: int) -> None:
        assert price_step(exchange, Decimal(price)) == step

    def test_of_an_index_is_a_hundredth_of_a_point(self) -> None:
        assert price_step(INDEX, Decimal("1630.15")) == Decimal("0.01")


class TestReference:
    def test_is_the_close_of_the_earlier_day(self) -> None:
        assert reference_range(HOSE, low=9_000, high=11_000, close=10_000) == Range.at(
            Decimal(10_000)
        )

    def test_of_upcom_is_all_that_the_earlier_day_traded_at(self) -> None:
        traded = Range(Decimal(9_000), Decimal(11_000))
        assert reference_range(UPCOM, low=9_000, high=11_000, close=10_000) == traded


class TestDayLimits:
    def test_are_one_price_step_beyond_the_width(self) -> None:
        limits = day_limits(HOSE, Range.at(Decimal(64_300)), USUAL)
        assert limits == Range(Decimal(57_870 - 100), Decimal(70_730 + 100))

    def test_of_upcom_reach_from_the_low_to_the_high_of_the_earlier_day(self) -> None:
        limits = day_limits(UPCOM, Range(Decimal(90_000), Decimal(110_000)), Decimal("0.15"))
        assert limits == Range(Decimal(76_500 - 100), Decimal(126_500 + 100))

    def test_take_in_what_a_trusted_source_has_shown(self) -> None:
        shown = Range(Decimal(40_000), Decimal(64_300))
        limits = day_limits(HOSE, Range.at(Decimal(64_300)), USUAL, shown=shown)
        assert limits.low == 40_000
        assert limits.high == 70_830

    @given(exchange=exchanges, price=prices)
    def test_take_in_what_is_exactly_at_the_width(
        self, exchange: Exchange | None, price: Decimal
    ) -> None:
        wide = width(exchange, usual=USUAL)
        limits = day_limits(exchange, Range.at(price), wide)
        assert price * (1 + wide) in limits
        assert price * (1 - wide) in limits
        assert price in limits


class TestCeilingAndFloor:
    @pytest.mark.parametrize(
        ("exchange", "reference", "ceiling", "floor"),
        [
            (HOSE, "64300", "68800", "59800"),
            (HOSE, "10000", "10700", "9300"),
            (HOSE, "46800", "50000", "43550"),
            (HNX, "35000", "38500", "31500"),
            (UPCOM, "10100", "11600", "8600"),
        ],
    )
    def test_are_the_last_quotable_prices_inside_the_exchanges_width(
        self, exchange: Exchange, reference: str, ceiling: str, floor: str
    ) -> None:
        assert ceiling_and_floor(exchange, Decimal(reference)) == (Decimal(ceiling), Decimal(floor))

    def test_an_index_has_none(self) -> None:
        with pytest.raises(ValueError, match="no ceiling"):
            ceiling_and_floor(INDEX, Decimal(1_600))

    @given(exchange=st.sampled_from([HOSE, HNX, UPCOM]), reference=prices)
    def test_lie_within_the_days_limits(self, exchange: Exchange, reference: Decimal) -> None:
        ceiling, floor = ceiling_and_floor(exchange, reference)
        limits = day_limits(exchange, Range.at(reference), width(exchange, usual=USUAL))
        assert ceiling <= limits.high
        assert floor >= limits.low


def test_a_price_is_read_as_it_is_written() -> None:
    """1659.7 is no sum of powers of two; 1659.7 * 1.1 is 1825.6700000000003 in floats."""
    assert decimal(1659.7) * Decimal("1.1") == Decimal("1825.67")
