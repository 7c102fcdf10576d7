"""The simulator's clock, in which a trading day passes faster than the real one."""

import datetime as dt
import time
from collections.abc import Callable

from tickers.market_clock import EXCHANGE_ZONE, MarketClock

# A quarter of an hour into the session, most symbols have traded.
DEMO_STARTS = dt.time(9, 30)


class AcceleratedClock:
    """A clock that begins at ``start`` and runs ``speed`` times as fast as life; 0 stands still.

    It stops at ``until``: a node whose market clock is frozen on one day would refuse the bars of
    the next. Raises ValueError for a time without its zone, or a negative speed.
    """

    def __init__(
        self,
        start: dt.datetime,
        speed: float = 1.0,
        *,
        until: dt.datetime | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if start.tzinfo is None or (until is not None and until.tzinfo is None):
            raise ValueError("the clock's times need a zone, as in 2025-08-15T09:30:00+07:00")
        if speed < 0:
            raise ValueError("the clock's speed must not be below 0: closed minutes never change")
        self._start = start
        self._speed = speed
        self._until = until
        self._monotonic = monotonic
        self._began = monotonic()

    def __call__(self) -> dt.datetime:
        passed = (self._monotonic() - self._began) * self._speed
        now = self._start + dt.timedelta(seconds=passed)
        return now if self._until is None else min(now, self._until)


def session_start(now: dt.datetime) -> dt.datetime:
    """Return 09:30 at the exchange on the trading day that is current at ``now``."""
    day = MarketClock(frozen_at=now).trading_day()
    return dt.datetime.combine(day, DEMO_STARTS, EXCHANGE_ZONE)
