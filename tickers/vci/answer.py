"""Reads an answer of the chart API: columns of values in, valid bars out.

An answer is a list with an object for each symbol: {"symbol", "o", "h", "l", "c", "v", "t"}, the
last six of equal length, times as strings of epoch seconds. A bad bar is dropped and counted, a
wrong object spoils its own symbol only, and an answer that is no such list is an AnswerError.
Nothing here does I/O.
"""

import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tickers import bounded_json
from tickers.bar import Bar, BarError, day_of, epoch_of
from tickers.vci.errors import AnswerError, HtmlError, NotJsonError

PointInterval = Literal["1m", "5m", "15m", "30m", "1H", "1W", "1M"]
Interval = Literal["1m", "5m", "15m", "30m", "1H", "1D", "1W", "1M"]

_COLUMNS = {"t": "time", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
# Eleven digits reach the year 5138; what has more is a time in milliseconds.
_EPOCH = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class Point:
    """What an interval other than 1D is made of: one symbol's OHLCV from ``time`` (UTC) on.

    Prices in VND (points for an index), volume in shares. A week's time is its Monday and a
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
    """What one request brought.

    ``series`` has, for each symbol in the answer, its bars (1D) or points, one a day or time and
    sorted. ``missing`` are the symbols that were asked for and left out, ``errors`` says what was
    wrong with a symbol's object, and ``dropped`` counts by reason what wasn't used.
    """

    series: dict[str, list[T]]
    missing: frozenset[str] = frozenset()
    errors: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Frame:
    """How an interval is had from the upstream.

    ``source`` is the upstream's timeFrame and ``start`` the start of the source bar that an instant
    lies in; ``fold`` is the start of the point which that source bar belongs to, and ``ratio`` the
    most source bars that make one point. All in epoch seconds.
    """

    source: str
    start: Callable[[int], int]
    fold: Callable[[int], int]
    ratio: int


def frame(interval: Interval) -> Frame:
    """The frame of an interval; raises ValueError for any other text."""
    try:
        return _FRAMES[interval]
    except KeyError:
        raise ValueError(f"interval must be one of {', '.join(_FRAMES)}") from None


def read(body: bytes, *, asked: Collection[str], interval: Interval) -> Answer[Any]:
    """The answer to a request for ``asked``: of Bar for 1D, else of Point; raises AnswerError.

    Objects of symbols that weren't asked for are counted in ``dropped``.
    """
    asked = frozenset(asked)
    start, fold = frame(interval).start, frame(interval).fold
    dropped: Counter[str] = Counter()
    errors: dict[str, str] = {}
    series: dict[str, list[Any]] = {}
    for item in _items(body):
        symbol = item.get("symbol") if isinstance(item, dict) else None
        if not isinstance(symbol, str) or symbol not in asked:
            dropped["an object of no symbol that was asked for"] += 1
            continue
        try:
            columns = _columns(symbol, item)
        except AnswerError as error:
            errors[symbol] = str(error)
            continue
        bars = _bars(symbol, columns, start=start, dropped=dropped)
        series[symbol] = (
            [bars[epoch] for epoch in sorted(bars)] if interval == "1D" else _points(bars, fold)
        )
    return Answer(
        series=series,
        missing=asked - series.keys() - errors.keys(),
        errors={symbol: error for symbol, error in errors.items() if symbol not in series},
        dropped=dropped,
    )


def _items(body: bytes) -> list[Any]:
    if body.lstrip()[:1] == b"<":
        raise HtmlError("the upstream answered 200 with HTML instead of JSON")
    if not body.strip():
        raise NotJsonError("the upstream answered 200 with an empty body")
    try:
        # NaN and Infinity, which are no JSON, are let through here to spoil one bar each.
        items = bounded_json.loads(body)
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
    """The columns t, o, h, l, c and v, all of one length."""
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


def _bars(
    symbol: str,
    columns: list[list[Any]],
    *,
    start: Callable[[int], int],
    dropped: Counter[str],
) -> dict[int, Bar]:
    """The valid bars by their start; of several with one start the last of the answer wins."""
    bars: dict[int, Bar] = {}
    for time, opened, high, low, close, volume in zip(*columns, strict=True):
        try:
            instant = _epoch(time)
            bar = Bar(
                symbol,
                day_of(instant),
                _price("open", opened),
                _price("high", high),
                _price("low", low),
                _price("close", close),
                _volume(volume),
            )
        except BarError as error:
            dropped[str(error)] += 1
            continue
        if (key := start(instant)) in bars:
            dropped["an earlier bar of the same time"] += 1
        bars[key] = bar
    return bars


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
    """First open, highest high, lowest low, last close and the sum of volumes of each point."""
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
