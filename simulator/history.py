"""The simulation's history: its trading days, and one symbol's walk along them."""

import datetime as dt
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

from simulator.rules import MINUTE, STEP, session_minutes
from simulator.walk import WalkBar, character, day_bar, dice, fold, split
from tickers.bar import epoch_of
from tickers.market_clock import is_trading_day
from tickers.universe import Listing


class Calendar:
    """The trading days from ``start`` on, each with its trend: the whole market's return."""

    def __init__(self, *, seed: int, start: dt.date) -> None:
        self.days: list[dt.date] = []
        self.trends: list[float] = []
        self._throw = dice(seed, "trend")
        self._next = start

    def index(self, day: dt.date) -> int:
        """Return the index in ``days`` of the last one up to ``day``; -1 when it is before all."""
        while self._next <= day:
            if is_trading_day(self._next):
                self.days.append(self._next)
                self.trends.append(self._throw.gauss(0.0003, 0.006))
            self._next += dt.timedelta(days=1)
        return bisect_right(self.days, day) - 1


class _Parts(NamedTuple):
    """A bar's parts; ``grown[i]`` is the first i + 1 of them folded."""

    time: int
    times: list[int]
    bars: list[WalkBar]
    grown: list[WalkBar]

    @classmethod
    def of(cls, time: int, bars: list[WalkBar]) -> "_Parts":
        first = bars[0]._replace(time=time)
        grown = list(accumulate(bars[1:], fold, initial=first))
        return cls(time, [bar.time for bar in bars], bars, grown)

    def until(self, moment: int) -> int:
        """Return how many parts have begun at ``moment`` (epoch seconds)."""
        return bisect_right(self.times, moment)


class SymbolWalk:
    """One symbol's bars, in whole units; each is computed once."""

    def __init__(self, listing: Listing, *, seed: int, calendar: Calendar) -> None:
        self._name = (seed, listing.symbol)
        self._calendar = calendar
        self._who = character(listing, seed=seed)
        self._throw = dice(*self._name, "days")
        self._days: list[WalkBar] = []
        self._minutes: _Parts | None = None
        self._steps: _Parts | None = None

    def closed_days(self, index: int) -> list[WalkBar]:
        """Return the bars of the calendar's days before ``index``."""
        self._extend(index)
        return self._days[:index]

    def current_day(self, index: int, *, now: int) -> tuple[WalkBar | None, list[WalkBar]]:
        """Return the bar of day ``index`` as it is at ``now``, and its minutes so far.

        A symbol that hasn't traded yet has neither.
        """
        minutes = self._minutes_of(index)
        begun = minutes.until(now)
        closed = minutes.until(now - MINUTE)
        if begun == closed:
            return (minutes.grown[closed - 1] if closed else None), minutes.bars[:closed]
        steps = self._steps_of(minutes.bars[closed])
        seen = steps.until(now)
        if not seen:
            return (minutes.grown[closed - 1] if closed else None), minutes.bars[:closed]
        minute = steps.grown[seen - 1]
        day = fold(minutes.grown[closed - 1], minute) if closed else minute
        return day._replace(time=minutes.time), [*minutes.bars[:closed], minute]

    def _extend(self, count: int) -> None:
        market_share = 0.7  # how far a symbol goes along with the whole market
        while len(self._days) < count:
            index = len(self._days)
            self._days.append(
                day_bar(
                    self._who,
                    time=epoch_of(self._calendar.days[index]),
                    reference=self._days[-1].close if self._days else self._who.base,
                    trend=market_share * self._calendar.trends[index],
                    throw=self._throw,
                )
            )

    def _minutes_of(self, index: int) -> _Parts:
        self._extend(index + 1)
        day = self._days[index]
        if self._minutes is None or self._minutes.time != day.time:
            bars = split(
                day,
                exchange=self._who.exchange,
                slots=session_minutes(self._calendar.days[index]),
                activity=self._who.activity,
                throw=dice(*self._name, day.time),
            )
            self._minutes = _Parts.of(day.time, bars)
        return self._minutes

    def _steps_of(self, minute: WalkBar) -> _Parts:
        if self._steps is None or self._steps.time != minute.time:
            bars = split(
                minute,
                exchange=self._who.exchange,
                slots=range(minute.time, minute.time + MINUTE, STEP),
                activity=self._who.activity,
                throw=dice(*self._name, minute.time),
            )
            self._steps = _Parts.of(minute.time, bars)
        return self._steps
