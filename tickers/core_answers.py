"""Core answers: all that a core network sends is checked here and becomes valid values.

A core network is trusted for its prices, not for its software: whatever it sends, a cycle fails or
continues without the wrong part, and nothing is kept that would stop a follower later. A wrong bar
spoils only itself, a wrong series only its symbol.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tickers import bounded_json
from tickers.bar import Bar, BarError, parse
from tickers.bounded_json import JsonError
from tickers.store.records import MAX_SERIES, Position
from tickers.universe import looks_like_symbol

MAX_SYMBOLS = 10_000  # of a market; three times as many as a node holds
MAX_POSITION = 64  # characters, also as an ETag; it has to fit into a request
MAX_REVISION = 2**53  # Lua and JSON readers hold smaller integers exactly
MAX_DETAIL = 300  # characters of an error that are shown
MAX_AGE_DIGITS = 9  # of X-Data-Age, in seconds: 31 years


class CoreAnswerError(Exception):
    """The answer is no market and no changes; the message says what it is instead."""


@dataclass(slots=True)
class Dropped:
    """The parts of an answer that aren't used: bars, and symbols by reason."""

    bars: int = 0
    symbols: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Market:
    """A market; its ``series`` is symbol → bars in the answer's order, perhaps several of a day."""

    series: dict[str, list[Bar]]
    dropped: Dropped


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes up to ``position``: bars, and symbols to be read whole or to be removed."""

    position: Position
    bars: list[Bar]
    replaced: list[str]
    removed: list[str]
    dropped: Dropped


def read_position(text: object) -> Position:
    """Read a position as the core network writes it; raises CoreAnswerError."""
    short = text if isinstance(text, str) and len(text) <= MAX_POSITION else ""
    try:
        position = Position.parse(short)
    except ValueError:
        raise CoreAnswerError("didn't say its position") from None
    if position.revision >= MAX_REVISION:
        raise CoreAnswerError("said a position of no revision that can be")
    return position


def read_age(header: str) -> float:
    """Read the seconds of an X-Data-Age header; 0 when there are none."""
    text = header.strip()
    return float(text[:MAX_AGE_DIGITS]) if text.isascii() and text.isdigit() else 0.0


def read_detail(body: bytes) -> str:
    """Read what the JSON of an error says, in one line of printable characters; maybe nothing."""
    try:
        answer = bounded_json.loads(body)
    except JsonError:
        return ""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if not isinstance(detail, str):
        return ""
    shown = "".join(sign if sign.isprintable() else " " for sign in detail[:MAX_DETAIL])
    return " ".join(shown.split())


def read_market(body: Any) -> Market:
    """Read {symbol: [bar, ...]}; raises CoreAnswerError."""
    if not isinstance(body, dict):
        raise CoreAnswerError("answered with something else than a market")
    if len(body) > MAX_SYMBOLS:
        raise CoreAnswerError(f"answered with {len(body)} symbols, more than any market has")
    dropped = Dropped()
    series: dict[str, list[Bar]] = {}
    for symbol, entries in body.items():
        if not (looks_like_symbol(symbol) and isinstance(entries, list)):
            dropped.symbols["no symbol with a list of bars"] += 1
        elif len(entries) > MAX_SERIES:
            dropped.symbols[f"a series of more than {MAX_SERIES} bars"] += 1
        else:
            bars = _bars(entries, dropped)
            series[symbol] = [bar for bar in bars if bar.symbol == symbol]
            dropped.bars += len(bars) - len(series[symbol])
    return Market(series, dropped)


def first_of_each_day(bars: Iterable[Bar]) -> list[Bar]:
    """Of each day the bar that came first, sorted by day.

    Older nodes append what strangers send behind their own, which their own fetch keeps right.
    """
    by_day: dict[dt.date, Bar] = {}
    for bar in bars:
        by_day.setdefault(bar.day, bar)
    return [by_day[day] for day in sorted(by_day)]


def read_changes(body: Any) -> Changes:
    """Read {"position", "bars", "replaced", "removed"}; raises CoreAnswerError."""
    if not isinstance(body, dict):
        raise CoreAnswerError("answered with something else than changes")
    dropped = Dropped()
    return Changes(
        position=read_position(body.get("position")),
        bars=_bars(_list(body, "bars"), dropped),
        replaced=_symbols(_list(body, "replaced"), dropped),
        removed=_symbols(_list(body, "removed"), dropped),
        dropped=dropped,
    )


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CoreAnswerError(f"answered with {name} that is no list")
    return value


def _symbols(entries: list[Any], dropped: Dropped) -> list[str]:
    symbols = [entry for entry in entries if isinstance(entry, str) and looks_like_symbol(entry)]
    if len(symbols) > MAX_SYMBOLS:
        raise CoreAnswerError(f"named {len(symbols)} symbols, more than any market has")
    if len(symbols) < len(entries):
        dropped.symbols["no symbol"] += len(entries) - len(symbols)
    return list(dict.fromkeys(symbols))


def _bars(entries: list[Any], dropped: Dropped) -> list[Bar]:
    bars = []
    for entry in entries:
        try:
            bars.append(parse(entry))
        except BarError:
            dropped.bars += 1
    return bars
