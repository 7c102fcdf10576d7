"""The real days of tests/data/prices.csv.xz, and the bars that an honest sender sends in one."""

import csv
import datetime as dt
import functools
import lzma
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tickers.bar import Bar
from tickers.universe import Universe

FILE = Path(__file__).parents[1] / "data" / "prices.csv.xz"
UNIVERSE = Universe.read()
VOLUME = 1_000_000  # shares of a whole day; the file has none


class Day(NamedTuple):
    """A symbol's bar of a day, and its bar of the trading day before; None on the first."""

    bar: Bar
    before: Bar | None


@functools.cache
def days() -> dict[dt.date, list[Day]]:
    """day → what each symbol's bar was, sorted by day."""
    by_day: dict[dt.date, list[Day]] = {}
    last: dict[str, Bar] = {}
    with lzma.open(FILE, "rt", encoding="utf-8", newline="") as file:
        for symbol, date, *prices in list(csv.reader(file))[1:]:
            first, high, low, close = map(float, prices)
            bar = Bar(symbol, dt.date.fromisoformat(date), first, high, low, close, VOLUME)
            by_day.setdefault(bar.day, []).append(Day(bar, last.get(symbol)))
            last[symbol] = bar
    return dict(sorted(by_day.items()))


def steps(bar: Bar, *, low_first: bool) -> Iterator[Bar]:
    """The day as it grew: at its open, then at its low and its high or the other way round, then
    whole. An open that lies outside the day's prices happens in real data; it isn't sent."""
    first = min(max(bar.open, bar.low), bar.high)
    extremes = (bar.low, bar.high) if low_first else (bar.high, bar.low)
    low = high = first
    for place, price in enumerate((first, *extremes, bar.close), 1):
        low, high = min(low, price), max(high, price)
        volume = bar.volume * place // 4
        yield replace(bar, open=first, low=low, high=high, close=price, volume=volume)
