"""Bars: what makes one, what never does, and that one comes back from its encoded form."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tickers.bar import (
    MAX_PRICE,
    MAX_VOLUME,
    Bar,
    BarError,
    day_of,
    epoch_of,
    number,
    parse,
    parse_day,
)

NAMES = ("open", "high", "low", "close")
PRICES = st.one_of(
    st.floats(0, MAX_PRICE, exclude_min=True),
    st.integers(1, 10**12).map(float),
    st.integers(1, 10**7).map(lambda hundredths: hundredths / 100),
)
SYMBOLS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=16)


def fields(**changes: Any) -> dict[str, Any]:
    """A valid bar's decoded wire form: VCB on 15 August 2025."""
    return {
        "symbol": "VCB",
        "time": "2025-08-15T00:00:00Z",
        "open": 67400,
        "high": 67500,
        "low": 64200,
        "close": 64300,
        "volume": 16667800,
        **changes,
    }


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    low, close, high = sorted(draw(st.tuples(PRICES, PRICES, PRICES)))
    return Bar(
        symbol=draw(SYMBOLS),
        day=draw(st.dates()),
        open=draw(PRICES),
        high=high,
        low=low,
        close=close,
        volume=draw(st.integers(0, MAX_VOLUME - 1)),
    )


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -0.0, 1e308, 5e-324, "67400", "2025-08-15", "ß", "VCB\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class TestEncoding:
    def test_it_is_the_wire_form(self) -> None:
        assert parse(fields()).encode() == (
            b'{"symbol":"VCB","time":"2025-08-15T00:00:00Z","open":67400,"high":67500,"low":64200,'
            b'"close":64300,"volume":16667800}'
        )

    @given(bars())
    def test_what_was_encoded_is_parsed_to_the_same_bar(self, bar: Bar) -> None:
        assert parse(json.loads(bar.encode())) == bar

    @given(bars())
    def test_it_is_one_line_of_ascii_with_the_time_in_utc(self, bar: Bar) -> None:
        encoded = bar.encode()
        assert encoded.isascii()
        assert b"\n" not in encoded
        assert json.loads(encoded)["time"] == f"{bar.day.isoformat()}T00:00:00Z"
        assert type(json.loads(encoded)["volume"]) is int

    @given(PRICES)
    @example(1e12)
    @example(5e-324)
    @example(0.1 + 0.2)
    def test_a_number_is_read_back_as_it_was_and_whole_ones_have_no_fraction(
        self, price: float
    ) -> None:
        assert float(json.loads(number(price))) == price
        assert ("." in number(price) or "e" in number(price)) is not price.is_integer()

    def test_whole_prices_may_be_integers(self) -> None:
        assert number(67400) == "67400"
        bar = Bar("VCB", dt.date(2025, 8, 15), 67400, 67500, 64200, 64300, 16667800)
        assert bar == parse(json.loads(bar.encode()))


class TestRules:
    """Of a bar: finite prices above 0, low ≤ close ≤ high, a whole volume below 2^53."""

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "price",
        [
            0,
            -1,
            -0.0,
            1e308,
            1e12 + 1,
            float("nan"),
            float("inf"),
            float("-inf"),
            10**400,
            -(10**400),
            True,
            None,
            "67400",
            [67400],
            {},
        ],
    )
    def test_prices_are_finite_numbers_above_zero(self, name: str, price: object) -> None:
        with pytest.raises(BarError, match=rf"^{name} must be a (number|price above 0)"):
            parse(fields(**{name: price}))

    def test_low_is_not_above_high(self) -> None:
        with pytest.raises(BarError, match="low must not be above high"):
            parse(fields(low=67501))
        flat = parse(fields(open=1, high=1, low=1, close=1))
        assert flat.prices == (1, 1, 1, 1)

    @pytest.mark.parametrize("close", [64199.99, 67500.01])
    def test_close_lies_between_low_and_high(self, close: float) -> None:
        with pytest.raises(BarError, match="close must lie between low and high"):
            parse(fields(close=close))

    @pytest.mark.parametrize("close", [64200, 67500])
    def test_close_may_be_the_low_or_the_high(self, close: float) -> None:
        assert parse(fields(close=close)).close == close

    @pytest.mark.parametrize(
        ("open_", "inside"), [(64200, True), (67500, True), (64199, False), (67501, False)]
    )
    def test_an_open_outside_is_a_bar_that_says_so(self, open_: float, inside: bool) -> None:
        assert parse(fields(open=open_)).opens_inside is inside

    @pytest.mark.parametrize(
        "volume",
        [-1, 2**53, 10**400, 1.5, float("nan"), float("inf"), 1e300, True, None, "100", [1], ""],
    )
    def test_volume_is_a_whole_number_that_a_double_holds(self, volume: object) -> None:
        with pytest.raises(BarError, match=r"^volume must be"):
            parse(fields(volume=volume))

    @pytest.mark.parametrize("volume", [0, 2**53 - 1, 100.0, -0.0])
    def test_volumes_are_integers_from_zero(self, volume: float) -> None:
        bar = parse(fields(volume=volume))
        assert bar.volume == volume
        assert type(bar.volume) is int

    @pytest.mark.parametrize(
        "symbol",
        ["", "A" * 17, "V B", "V.B", "VCB\n", "{market}", "ß", "ﬁ", "٣", None, 5, True, ["V"]],
    )
    def test_a_symbol_looks_like_one(self, symbol: object) -> None:
        with pytest.raises(BarError, match="symbol must be 1 to 16 letters and digits"):
            parse(fields(symbol=symbol))

    def test_a_symbols_case_is_folded(self) -> None:
        assert parse(fields(symbol="vnIndex")).symbol == "VNINDEX"

    @pytest.mark.parametrize("name", ["symbol", "time", *NAMES, "volume"])
    def test_nothing_may_be_missing(self, name: str) -> None:
        without = fields()
        del without[name]
        with pytest.raises(BarError, match=f"^{name} must be"):
            parse(without)

    def test_other_fields_are_ignored(self) -> None:
        assert parse(fields(change="+1 %", note=None)) == parse(fields())

    @pytest.mark.parametrize("value", [None, 5, "VCB", [], [fields()], True])
    def test_what_is_no_object_is_no_bar(self, value: object) -> None:
        with pytest.raises(BarError, match="a bar must be an object"):
            parse(value)

    @given(JSON_LIKE)
    def test_nothing_decoded_raises_anything_else(self, value: object) -> None:
        self.assert_bar_or_error(value)

    @given(st.dictionaries(st.sampled_from(list(fields())), JSON_LIKE))
    def test_no_value_of_a_field_raises_anything_else(self, changes: dict[str, Any]) -> None:
        self.assert_bar_or_error(fields(**changes))

    def assert_bar_or_error(self, value: object) -> None:
        try:
            bar = parse(value)
        except BarError as error:
            refused = str(error)
        else:
            refused = ""
            assert parse(json.loads(bar.encode())) == bar
        assert "\n" not in refused


class TestDays:
    @pytest.mark.parametrize(
        ("time", "day"),
        [
            ("2025-08-15", "2025-08-15"),  # existing nodes send bare dates
            ("2025-08-15T00:00:00Z", "2025-08-15"),
            ("2025-08-15T16:59:59Z", "2025-08-15"),
            ("2025-08-15T17:00:00Z", "2025-08-16"),
            ("2025-08-15T17:30:00Z", "2025-08-16"),
            ("2025-08-15T00:00:00+07:00", "2025-08-15"),
            ("2025-08-14T23:59:59.999999999+07:00", "2025-08-14"),
            ("2025-08-15T00:00:00-12:00", "2025-08-15"),
            ("2025-08-15T12:00:00-12:00", "2025-08-16"),
            ("2025-08-15t10:00:00z", "2025-08-15"),  # RFC 3339, 5.6: case and the T are free
            ("2025-08-15 10:00:00.5+00:00", "2025-08-15"),
            ("2024-02-29", "2024-02-29"),
        ],
    )
    def test_a_bars_day_is_the_date_at_the_exchange(self, time: str, day: str) -> None:
        assert parse_day(time) == dt.date.fromisoformat(day)
        assert parse(fields(time=time)).day == dt.date.fromisoformat(day)

    @pytest.mark.parametrize(
        "time",
        [
            "",
            "2025-08-15T00:00:00",  # of which zone?
            "2025-08-15T00:00Z",
            "2025-02-29",
            "2025-13-01",
            "20250815",
            "2025-W33-5",
            "15/08/2025",
            "2025-08-15T25:00:00Z",
            "2025-08-15T00:00:00+25:00",
            "2025-08-15T00:00:00.Z",
            "2025-08-15\n",
            " 2025-08-15",
            "\uff12\uff10\uff12\uff15-08-15",
            "9999-12-31T23:59:59Z",
            "0001-01-01T00:00:00+14:00",
            "1755216000",
            1755216000,
            None,
            True,
            ["2025-08-15"],
        ],
    )
    def test_other_times_are_refused(self, time: object) -> None:
        with pytest.raises(BarError, match=r"^time must be"):
            parse(fields(time=time))

    @given(st.datetimes(dt.datetime(1970, 1, 2), timezones=st.just(dt.UTC)))
    def test_an_instants_day_and_an_epochs_day_agree(self, moment: dt.datetime) -> None:
        if moment.year == 9999:
            return
        whole = moment.replace(microsecond=0)
        assert parse_day(whole.isoformat()) == day_of(int(whole.timestamp()))

    @given(st.dates())
    def test_a_bars_epoch_is_its_days_midnight_in_utc(self, day: dt.date) -> None:
        midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
        assert epoch_of(day) == midnight.timestamp()
        assert Bar("VCB", day, 1, 1, 1, 1, 0).epoch == epoch_of(day)

    def test_an_epoch_of_midnight_in_vietnam_is_that_day(self) -> None:
        assert day_of(1_755_190_800) == dt.date(2025, 8, 15)
        assert day_of(1_755_190_799) == dt.date(2025, 8, 14)

    @pytest.mark.parametrize("epoch", [10**30, -(10**30), 253_402_300_800])
    def test_an_epoch_beyond_the_calendar_is_refused(self, epoch: int) -> None:
        with pytest.raises(BarError, match="time is out of range"):
            day_of(epoch)
