"""The market clock: which trading day it is, and whether the exchange is open.

Everything that decides about days asks this clock, and nothing else does. Windows, leases, limits
and backoff measure real time, never this.
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


@dataclass(frozen=True, slots=True)
class OfficeHours:
    """When the node works at its fast pace; ``enabled=False`` means always."""

    enabled: bool = True
    start: dt.time = dt.time(9, 0)
    end: dt.time = dt.time(15, 0)
    zone: ZoneInfo = EXCHANGE_ZONE


@dataclass(frozen=True, slots=True)
class MarketClock:
    """``frozen_at`` stops the clock there, for rehearsals."""

    office_hours: OfficeHours = field(default_factory=OfficeHours)
    frozen_at: dt.datetime | None = None
    wall_time: Callable[[], float] = time.time

    def now(self) -> dt.datetime:
        return self.frozen_at or dt.datetime.fromtimestamp(self.wall_time(), dt.UTC)

    def today(self) -> dt.date:
        """The date at the exchange: no bar of a later day can be true."""
        return self.now().astimezone(EXCHANGE_ZONE).date()

    def trading_day(self) -> dt.date:
        """The last day whose session has opened: on a Sunday, Friday."""
        local = self.now().astimezone(EXCHANGE_ZONE)
        day = local.date()
        if local.time() < SESSION_OPENS:
            day -= dt.timedelta(days=1)
        while not is_trading_day(day):
            day -= dt.timedelta(days=1)
        return day

    def in_office_hours(self, *, ago: float = 0) -> bool:
        """Whether the exchange trades, or did ``ago`` seconds ago, as configured; always true when
        office hours are off."""
        return not self.office_hours.enabled or self.exchange_trades(ago=ago)

    def exchange_trades(self, *, ago: float = 0) -> bool:
        """Whether it is, or was ``ago`` seconds ago, a trading day within the configured hours, be
        they on or off."""
        hours = self.office_hours
        local = (self.now() - dt.timedelta(seconds=ago)).astimezone(hours.zone)
        return is_trading_day(local.date()) and hours.start <= local.time() < hours.end


def is_trading_day(day: dt.date) -> bool:
    """Monday to Friday, except Vietnam's public holidays, on which HOSE and HNX are closed."""
    return day.weekday() < 5 and day not in _vietnam_holidays()


@functools.cache
def _vietnam_holidays() -> holidays.HolidayBase:
    return holidays.country_holidays("VN")
