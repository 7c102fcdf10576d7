"""The simulated market: every listing's bars, as the exchange would know them now.

It is pure: it takes a clock and a seed and does no I/O. Two markets with the same universe, seed
and history_start give the same answer at the same time, and later answers only add to it.
"""

import datetime as dt
import functools
import math
import threading
from bisect import bisect_right
from collections.abc import Callable
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple, TypeVar

from simulator.history import Calendar, SymbolWalk
from simulator.rules import units_per_price
from simulator.walk import WalkBar, fold
from tickers.bar import MAX_VOLUME, epoch_of
from tickers.market_clock import MarketClock
from tickers.universe import Universe


class SimulationError(ValueError):
    """An order that the simulator can't carry out; the message names what is wrong."""


class Frame(StrEnum):
    """The length of a bar, in the upstream's words."""

    ONE_DAY = "ONE_DAY"
    ONE_HOUR = "ONE_HOUR"
    ONE_MINUTE = "ONE_MINUTE"


class SimulatedBar(NamedTuple):
    """A bar: ``time`` in epoch seconds, prices in VND (an index: points), ``volume`` in shares."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: int


_HOUR = 3_600  # seconds
_AnyBar = TypeVar("_AnyBar", WalkBar, SimulatedBar)


class SimulatedMarket:
    """A market with each listing's daily bars from ``history_start`` on, and today's minutes.

    Symbols are named as the upstream spells them. The current trading day is the market clock's.
    Any thread may call any method.
    """

    def __init__(
        self,
        universe: Universe,
        *,
        clock: Callable[[], dt.datetime],
        seed: int,
        history_start: dt.date,
    ) -> None:
        self.clock = clock
        self._calendar = Calendar(seed=seed, start=history_start)
        self._walks = {
            entry.upstream: SymbolWalk(entry, seed=seed, calendar=self._calendar)
            for entry in universe
        }
        self._units = {entry.upstream: units_per_price(entry.exchange) for entry in universe}
        # By symbol: the first day that isn't adjusted (epoch seconds), and the factor.
        self._adjusted: dict[str, tuple[int, float]] = {}
        self._set: dict[str, dict[int, SimulatedBar]] = {}  # symbol → day → bar
        self._lock = threading.RLock()

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._walks

    def __len__(self) -> int:
        return len(self._walks)

    def trading_day(self) -> dt.date:
        return MarketClock(frozen_at=self.clock()).trading_day()

    def bars(
        self, symbol: str, *, frame: Frame, to: int, count_back: int = 0
    ) -> list[SimulatedBar]:
        """Return the last ``count_back`` bars (0: all) that begin at ``to`` (epoch seconds) or
        before.

        Hours and minutes are the current day's only, up to the clock's time. Raises KeyError for a
        symbol that isn't listed.
        """
        with self._lock:
            walk, units = self._walks[symbol], self._units[symbol]
            now = self.clock()
            index = self._calendar.index(MarketClock(frozen_at=now).trading_day())
            if index < 0:
                return []
            today, minutes = walk.current_day(index, now=int(now.timestamp()))
            if frame is not Frame.ONE_DAY:
                parts = minutes if frame is Frame.ONE_MINUTE else _hours(minutes)
                return _priced(_last(parts, to, count_back), units)
            days = [*walk.closed_days(index), *([today] if today else [])]
            if symbol not in self._adjusted and symbol not in self._set:
                return _priced(_last(days, to, count_back), units)
            return _last(self._as_ordered(symbol, _priced(days, units)), to, count_back)

    def adjust(self, symbol: str, factor: float) -> None:
        """Multiply the prices of the days before the current one, as a dividend does; 1 undoes it.

        A second factor replaces the first. Raises SimulationError.
        """
        self._check_listed(symbol)
        if not _is_number(factor) or factor <= 0:
            raise SimulationError(f"{symbol}: the factor must be a number above 0, such as 0.9")
        with self._lock:
            self._adjusted[symbol] = (epoch_of(self.trading_day()), float(factor))

    def set_bar(
        self, symbol: str, *, close: float | None = None, volume: int | None = None
    ) -> None:
        """Fix the current day's bar at this ``close`` and ``volume``.

        A value that isn't given stays as it is now; high and low are widened to the close. Minutes
        don't change. The bar is fixed until ``release_bar``, and for good once its day is over.
        Raises SimulationError.
        """
        self._check_listed(symbol)
        if close is not None and (not _is_number(close) or close <= 0):
            raise SimulationError(f"{symbol}: close must be a number above 0")
        if volume is not None and not (_is_whole(volume) and 0 <= volume < MAX_VOLUME):
            raise SimulationError(f"{symbol}: volume must be a whole number from 0 to 2^53 - 1")
        with self._lock:
            time = epoch_of(self.trading_day())
            latest = self.bars(symbol, frame=Frame.ONE_DAY, to=time, count_back=1)
            if latest and latest[0].time == time:
                bar = latest[0]
            elif close is None:
                raise SimulationError(f"{symbol}: hasn't traded today; give its close")
            else:
                bar = SimulatedBar(time, close, close, close, close, 0)
            close = bar.close if close is None else float(close)
            self._set.setdefault(symbol, {})[time] = bar._replace(
                high=max(bar.high, close),
                low=min(bar.low, close),
                close=close,
                volume=bar.volume if volume is None else volume,
            )

    def release_bar(self, symbol: str) -> None:
        """Return the current day's bar to the walk; raises SimulationError."""
        self._check_listed(symbol)
        with self._lock:
            self._set.get(symbol, {}).pop(epoch_of(self.trading_day()), None)

    def _check_listed(self, symbol: str) -> None:
        if symbol not in self._walks:
            raise SimulationError(f"{symbol} isn't in the simulated market's universe")

    def _as_ordered(self, symbol: str, bars: list[SimulatedBar]) -> list[SimulatedBar]:
        before, factor = self._adjusted.get(symbol, (0, 1.0))
        by_day = {bar.time: bar for bar in bars} | self._set.get(symbol, {})
        return [
            _adjusted(bar, factor) if bar.time < before else bar
            for _, bar in sorted(by_day.items())
        ]


def _last(bars: list[_AnyBar], to: int, count_back: int) -> list[_AnyBar]:
    end = bisect_right(bars, to, key=lambda bar: bar.time)
    return bars[:end][-count_back:]


def _hours(minutes: list[WalkBar]) -> list[WalkBar]:
    return [
        functools.reduce(fold, group)._replace(time=hour)
        for hour, group in groupby(minutes, key=lambda bar: bar.time // _HOUR * _HOUR)
    ]


def _priced(bars: list[WalkBar], units: int) -> list[SimulatedBar]:
    return [
        SimulatedBar(time, first / units, high / units, low / units, close / units, volume)
        for time, first, high, low, close, volume in bars
    ]


def _adjusted(bar: SimulatedBar, factor: float) -> SimulatedBar:
    first, high, low, close = (round(price * factor, 2) for price in bar[1:5])
    return SimulatedBar(bar.time, first, high, low, close, bar.volume)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
