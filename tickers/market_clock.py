"""The market clock says which trading day it is, and whether the exchange is open.

All code that decides about days asks this clock. Windows, leases, limits and backoff measure real
time, never this.
"""

import datetime as dt
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import holidays

EXCHANGE_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")

# HOSE and HNX open at 09:00 (HOSE's opening auction lasts until 09:15).
SESSION_OPENS = dt.time(9, 0)


# Weekdays on which the exchanges were closed although the library knows no holiday. 2 January 2026
# was exchanged for Saturday the 10th; the first session of that year was on Monday the 5th.
CLOSED_AS_WELL = frozenset({dt.date(2026, 1, 2)})


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days on which HOSE and HNX trade: Monday to Friday, except Vietnam's public holidays.

    ``extra_holidays`` and ``extra_trading_days`` are an operator's corrections; the latter win.
    ``shown`` are days that the market itself has shown to be trading days.
    """

    extra_holidays: frozenset[dt.date] = frozenset()
    extra_trading_days: frozenset[dt.date] = frozenset()
    shown: set[dt.date] = field(default_factory=set)

    def is_trading_day(self, day: dt.date) -> bool:
        if day in self.extra_trading_days or day in self.shown:
            return True
        return day not in self.extra_holidays and _trades_usually(day)

    def trading_days_between(self, earlier: dt.date, later: dt.date) -> int:
        """Count the trading days after the one day and before the other, a year of them at most."""
        days = min((later - earlier).days, 366)
        between = (later - dt.timedelta(days=back) for back in range(1, days))
        return sum(self.is_trading_day(day) for day in between)


@dataclass(frozen=True, slots=True)
class OfficeHours:
    """The hours in which the node works at its fast pace; ``enabled=False`` means always."""

    enabled: bool = True
    start: dt.time = dt.time(9, 0)
    end: dt.time = dt.time(15, 0)
    zone: ZoneInfo = EXCHANGE_ZONE


@dataclass(frozen=True, slots=True)
class MarketClock:
    """The clock at the exchange; ``frozen_at`` stops it there (DEBUG_SYSTEM_TIME)."""

    office_hours: OfficeHours = field(default_factory=OfficeHours)
    calendar: Calendar = field(default_factory=Calendar)
    frozen_at: dt.datetime | None = None
    wall_time: Callable[[], float] = time.time

    def now(self) -> dt.datetime:
        return self.frozen_at or dt.datetime.fromtimestamp(self.wall_time(), dt.UTC)

    def today(self) -> dt.date:
        """Return the date at the exchange; no bar of a later day can be true."""
        return self.now().astimezone(EXCHANGE_ZONE).date()

    def trading_day(self) -> dt.date:
        """Return the last day whose session has opened; on a Sunday that is Friday."""
        local = self.now().astimezone(EXCHANGE_ZONE)
        day = local.date()
        if local.time() < SESSION_OPENS:
            day -= dt.timedelta(days=1)
        while not self.calendar.is_trading_day(day):
            day -= dt.timedelta(days=1)
        return day

    def in_office_hours(self, *, ago: float = 0) -> bool:
        """Tell whether it is, or was ``ago`` seconds ago, within office hours; always true when
        they are off."""
        return not self.office_hours.enabled or self.exchange_trades(ago=ago)

    def exchange_trades(self, *, ago: float = 0) -> bool:
        """Tell whether it is, or was ``ago`` seconds ago, a trading day within the configured
        hours, even when office hours are off."""
        hours = self.office_hours
        local = (self.now() - dt.timedelta(seconds=ago)).astimezone(hours.zone)
        return (
            self.calendar.is_trading_day(local.date()) and hours.start <= local.time() < hours.end
        )


def is_trading_day(day: dt.date) -> bool:
    """Tell whether a day is a trading day by the calendar without an operator's corrections."""
    return _CALENDAR.is_trading_day(day)


# Every bar's day is asked for, and a market's bars are of the same few hundred.
@functools.lru_cache(maxsize=8_192)
def _trades_usually(day: dt.date) -> bool:
    return day.weekday() < 5 and day not in CLOSED_AS_WELL and day not in _vietnam_holidays()


@functools.cache
def _vietnam_holidays() -> holidays.HolidayBase:
    return holidays.country_holidays("VN")


_CALENDAR = Calendar()
