"""This module reads an answer of the chart API: columns of values become valid bars.

An answer is a list with an object for each symbol: {"symbol", "o", "h", "l", "c", "v", "t"}, the
last six of equal length, times as strings of epoch seconds. A bad bar is dropped and counted; a
wrong object, or one without a usable bar, spoils its own symbol only; an answer that is no such
list is an AnswerError. Several objects of a symbol are read as one. Of two bars of a day the one
with the larger volume is used, and of equal ones the later. Nothing here does I/O.
"""

import datetime as dt
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from tickers import bounded_json
from tickers.bar import Bar, BarError, day_of, epoch_of
from tickers.vci.errors import AnswerError, HtmlError, NotJsonError
from tickers.vci.rows import ReadRow, Rows, can_be_compared

PointInterval = Literal["1m", "5m", "15m", "30m", "1H", "1W", "1M"]
Interval = Literal["1m", "5m", "15m", "30m", "1H", "1D", "1W", "1M"]

_COLUMNS = {"t": "time", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
# Eleven digits reach the year 5138; a longer number is a time in milliseconds.
_EPOCH = re.compile(r"[0-9]{1,11}")

# An index's close may lie outside its low and high by less than this fraction, which is rounding:
# VNINDEX closed at 1,630.004 over a high of 1,630.00.
ROUNDING = 1e-5
_REASONS_TOLD = 3  # reasons that a message names why no bar of a symbol is usable


@dataclass(frozen=True, slots=True)
class Point:
    """A point is one symbol's OHLCV of an interval other than 1D, from ``time`` (UTC) on.

    Prices are in VND (points for an index), volume is in shares. A week's time is its Monday and a
    month's its first day, at 00:00 UTC, as the days of bars are written.
    """

    symbol: str
    time: dt.datetime
    open: float
    high: float
    low: float
    close: float
    volume: int


T = TypeVar("T", Bar, Point)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The answer to one request.

    ``series`` has, for each symbol that came, its bars (1D) or points: at least one, one a day or
    time, and sorted. ``missing`` are the symbols that were asked for and left out. ``errors`` says
    of a symbol that came without a usable bar what came instead. ``dropped`` counts by reason what
    wasn't used. ``empty`` are those of ``errors`` whose columns have no values at all: only the
    caller, who knows whether the symbol has bars, can say whether that is an error. ``age`` is how
    many seconds old the bars of another node's door were; None: they come from an exchange.
    """

    series: dict[str, list[T]]
    missing: frozenset[str] = frozenset()
    errors: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    empty: frozenset[str] = frozenset()
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame says how an interval is made from what the upstream offers.

    ``source`` is the upstream's timeFrame. ``start`` maps an instant to the start of its source
    bar, and ``fold`` that start to the start of its point, all in epoch seconds. ``ratio`` is the
    most source bars that make one point.
    """

    source: str
    start: Callable[[int], int]
    fold: Callable[[int], int]
    ratio: int


def frame(interval: Interval) -> Frame:
    """Return the frame of an interval; raise ValueError for any other text."""
    try:
        return _FRAMES[interval]
    except KeyError:
        raise ValueError(f"interval must be one of {', '.join(_FRAMES)}") from None


def read(
    body: bytes,
    *,
    asked: Collection[str],
    interval: Interval,
    spellings: Mapping[str, str] = MappingProxyType({}),
    indices: Collection[str] = (),
    last: Rows | None = None,
) -> Answer[Any]:
    """Return the answer to a request for ``asked``: of Bar for 1D, else of Point.

    ``body`` is one that a bounded_json.Shape has examined.
    ``spellings`` has the upstream's names of symbols that it spells differently; case is folded.
    ``indices`` are the symbols whose closes may be rounded. Objects of symbols that weren't asked
    for are counted in ``dropped``. ``last`` has the rows of the same upstream's last answer of 1D,
    and gets this one's. Raises AnswerError.
    """
    start, fold = frame(interval).start, frame(interval).fold
    dropped: Counter[str] = Counter()
    if last is None or interval != "1D" or not can_be_compared(body):
        last = Rows()
    found = {s: _Found(s, rounds=s in indices, last=last.of(s)) for s in asked}
    by_name = {spellings.get(symbol, symbol).upper(): symbol for symbol in asked}
    for item in _items(body):
        name = item.get("symbol") if isinstance(item, dict) else None
        # Names must be ASCII, as the upper case of some other letters is ASCII.
        if isinstance(name, str) and name.isascii() and name.upper() in by_name:
            found[by_name[name.upper()]].add(item, start=start)
        else:
            dropped["an object of no symbol that was asked for"] += 1
    for each in found.values():
        last.note(each.symbol, each.rows)
        if each.dropped:
            dropped.update(each.dropped)
        if each.bars and each.error:
            dropped["an object beside another of its symbol that can be read"] += 1
    return Answer(
        series={
            each.symbol: [each.bars[epoch] for epoch in sorted(each.bars)]
            if interval == "1D"
            else _points(each.bars, fold)
            for each in found.values()
            if each.bars
        },
        missing=frozenset(each.symbol for each in found.values() if not each.objects),
        errors={s: each.complaint() for s, each in found.items() if each.objects and not each.bars},
        dropped=dropped,
        empty=frozenset(each.symbol for each in found.values() if each.is_empty),
    )


def _items(body: bytes) -> list[Any]:
    if body.lstrip()[:1] == b"<":
        raise HtmlError("the upstream answered 200 with HTML instead of JSON")
    if not body.strip():
        raise NotJsonError("the upstream answered 200 with an empty body")
    try:
        # NaN and Infinity, which aren't JSON, are accepted here, so that they spoil one bar each.
        items = bounded_json.build(body)
    except bounded_json.JsonError as error:
        if error.position is None:
            raise NotJsonError(
                f"the upstream answered 200 with JSON that can't be read: {error}"
            ) from None
        raise NotJsonError(
            f"the upstream answered 200 with broken JSON: it ends or errs at character "
            f"{error.position} of {error.length}"
        ) from None
    if not isinstance(items, list):
        kind = "an object" if isinstance(items, dict) else "a single value"
        raise AnswerError(f"the upstream answered 200 with {kind} instead of a list of symbols")
    return items


def _columns(symbol: str, item: Mapping[str, Any]) -> list[list[Any]]:
    """Return the columns t, o, h, l, c and v, all of one length; raise AnswerError."""
    for key in _COLUMNS:
        if key not in item:
            raise AnswerError(f"column {key} is missing (symbol {symbol})")
        if not isinstance(item[key], list):
            raise AnswerError(f"column {key} is not a list (symbol {symbol})")
        if len(item[key]) != len(item["t"]):
            raise AnswerError(
                f"column {key} has {len(item[key])} values, t has {len(item['t'])} "
                f"(symbol {symbol})"
            )
    return [item[key] for key in _COLUMNS]


@dataclass(slots=True)
class _Found:
    """One symbol's part of an answer: the valid bars of all its objects, by their start."""

    symbol: str
    rounds: bool
    last: Sequence[ReadRow | None]
    rows: list[ReadRow | None] = field(default_factory=list)
    bars: dict[int, Bar] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    error: str = ""  # of an object that can't be read

    def add(self, item: Mapping[str, Any], *, start: Callable[[int], int]) -> None:
        self.objects += 1
        try:
            columns = _columns(self.symbol, item)
        except AnswerError as error:
            self.error = str(error)
            return
        known = itertools.chain(self.last, itertools.repeat(None))
        for values, before in zip(zip(*columns, strict=True), known, strict=False):
            same = before is not None and before.values == values
            row = before if same else self._row(values, start)
            self.rows.append(row)
            if row is None:
                continue
            stands = self.bars.get(row.start)
            if stands is not None:
                self.dropped["another bar of the same time"] += 1
            if stands is None or row.bar.volume >= stands.volume:
                self.bars[row.start] = row.bar

    def _row(self, values: tuple[Any, ...], start: Callable[[int], int]) -> ReadRow | None:
        """Read a row; return None, and count why, if it makes no bar."""
        try:
            instant = _epoch(values[0])
            return ReadRow(values, start(instant), self._bar(day_of(instant), values[1:]))
        except BarError as error:
            self.dropped[str(error)] += 1
            return None

    def _bar(self, day: dt.date, values: Sequence[Any]) -> Bar:
        opened, high, low, close = map(_price, ("open", "high", "low", "close"), values)
        if self.rounds and low <= high:
            if high < close < high * (1 + ROUNDING):
                high = close
            elif low * (1 - ROUNDING) < close < low:
                low = close
        return Bar(self.symbol, day, opened, high, low, close, _volume(values[4]))

    @property
    def is_empty(self) -> bool:
        return bool(self.objects) and not self.rows and not self.error

    def complaint(self) -> str:
        """Return what came instead of a usable bar."""
        if self.error:
            return self.error
        if not self.rows:
            return f"its columns are empty (symbol {self.symbol})"
        reasons = ", ".join(f"{why} ({n})" for why, n in self.dropped.most_common(_REASONS_TOLD))
        return f"none of its {len(self.rows)} bars is usable: {reasons} (symbol {self.symbol})"


def _epoch(value: object) -> int:
    if type(value) is int and 0 <= value < 10**11:
        return value
    if isinstance(value, str) and _EPOCH.fullmatch(value):
        return int(value)
    raise BarError("time must be epoch seconds")


def _number(name: str, value: object) -> float:
    if type(value) is int:
        return value
    if value is None:
        raise BarError(f"{name} is null")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BarError(f"{name} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BarError(f"{name} is not finite")
    return value


def _price(name: str, value: object) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    try:
        return float(_number(name, value))
    except OverflowError:
        raise BarError(f"{name} is not finite") from None


def _volume(value: object) -> int:
    number = _number("volume", value)
    if number != int(number):
        raise BarError("volume is not a whole number")
    return int(number)


def _points(bars: Mapping[int, Bar], fold: Callable[[int], int]) -> list[Point]:
    """Return points with first open, highest high, lowest low, last close and summed volume."""
    groups: dict[int, list[Bar]] = {}
    for epoch in sorted(bars):
        groups.setdefault(fold(epoch), []).append(bars[epoch])
    return [
        Point(
            symbol=group[0].symbol,
            time=dt.datetime.fromtimestamp(start, dt.UTC),
            open=group[0].open,
            high=max(bar.high for bar in group),
            low=min(bar.low for bar in group),
            close=group[-1].close,
            volume=sum(bar.volume for bar in group),
        )
        for start, group in groups.items()
    ]


def _floor(seconds: int) -> Callable[[int], int]:
    # Vietnam is seven whole hours from UTC, so hours and their parts begin at the same instants.
    return lambda epoch: epoch - epoch % seconds


def _day(epoch: int) -> int:
    return epoch_of(day_of(epoch))


def _monday(epoch: int) -> int:
    day = day_of(epoch)
    return epoch_of(day - dt.timedelta(days=day.weekday()))


def _first_of_month(epoch: int) -> int:
    return epoch_of(day_of(epoch).replace(day=1))


# A week has 5 trading days and a month up to 23.
_FRAMES: dict[str, Frame] = {
    "1m": Frame("ONE_MINUTE", _floor(60), _floor(60), 1),
    "5m": Frame("ONE_MINUTE", _floor(60), _floor(300), 5),
    "15m": Frame("ONE_MINUTE", _floor(60), _floor(900), 15),
    "30m": Frame("ONE_MINUTE", _floor(60), _floor(1_800), 30),
    "1H": Frame("ONE_HOUR", _floor(3_600), _floor(3_600), 1),
    "1D": Frame("ONE_DAY", _day, _day, 1),
    "1W": Frame("ONE_DAY", _day, _monday, 5),
    "1M": Frame("ONE_DAY", _day, _first_of_month, 23),
}
