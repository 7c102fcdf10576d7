"""What real bars look like, and that the rules take them as they are."""

import csv
import datetime as dt
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from tickers import bands
from tickers.bands import Range, decimal
from tickers.bar import Bar, parse
from tickers.snapshot.series import bar_of
from tickers.universe import Universe

DATA = Path(__file__).parents[1] / "data" / "daily.csv"


def bars() -> list[Bar]:
    with DATA.open(newline="") as file:
        return [
            Bar(
                symbol=row["symbol"],
                day=dt.date.fromisoformat(row["date"]),
                open=float(row["open"]),
                high=float(row["high"]),
                low=float(row["low"]),
                close=float(row["close"]),
                volume=int(row["volume"]),
            )
            for row in csv.DictReader(file)
        ]


def test_every_real_bar_is_valid_and_comes_back_from_its_encoded_form() -> None:
    assert [bar_of(bar.encode()) for bar in bars()] == bars()


def test_real_opens_lie_outside_low_and_high_now_and_then() -> None:
    strange = [bar for bar in bars() if not bar.opens_inside]
    assert len(strange) == 13
    assert {(bar.day.year, bar.day.month) for bar in strange} == {(2025, 5)}


@pytest.mark.parametrize("symbol", ["VCB", "FPT", "ACV", "VNINDEX"])
def test_a_real_day_is_plausible_by_the_close_of_the_day_before(symbol: str) -> None:
    exchange = Universe.read().exchange(symbol)
    series = [bar for bar in bars() if bar.symbol == symbol and bar.day.month == 8]
    assert len(series) == 11
    for before, bar in pairwise(series):
        width = bands.width(exchange, usual=Decimal("0.10"))
        limits = bands.day_limits(exchange, Range.at(decimal(before.close)), width)
        assert all(decimal(price) in limits for price in bar.prices)


def test_a_real_bar_is_read_from_a_bare_date_as_existing_nodes_send_it() -> None:
    bar = next(bar for bar in bars() if bar.symbol == "VCB" and bar.day.day == 15)
    fields = {name: getattr(bar, name) for name in ("symbol", "open", "high", "low", "close")}
    assert parse({**fields, "time": "2025-08-15", "volume": bar.volume}) == bar
