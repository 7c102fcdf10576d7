"""The rules of Vietnam's exchanges that a simulated price keeps: session, tick sizes, daily limits.

Prices here are whole units: VND for a share, hundredths of a point for an index, so that no
rounding error ever leaves the grid. The rules are those the exchanges publish: HOSE ±7 % with ticks
by price, HNX ±10 % and UPCOM ±15 % with a tick of 100 VND. An index has no limit; it gets a small
one here, because a whole market seldom moves further.
"""

import datetime as dt
from itertools import chain

from tickers.bar import epoch_of
from tickers.universe import Exchange

LOT = 100  # shares
MINUTE = 60  # seconds
STEP = 2  # seconds: the finest time at which a simulated price changes

DAILY_LIMIT = {Exchange.HOSE: 7, Exchange.HNX: 10, Exchange.UPCOM: 15, Exchange.INDEX: 3}  # percent
UNITS_PER_POINT = 100

_ZONE_OFFSET = 7 * 3600  # Vietnam has kept UTC+7, without summer time, since 1975
_MORNING = (dt.time(9, 15), dt.time(11, 30))
_AFTERNOON = (dt.time(13, 0), dt.time(14, 45))


def units_per_price(exchange: Exchange) -> int:
    return UNITS_PER_POINT if exchange is Exchange.INDEX else 1


def tick_size(exchange: Exchange, units: int) -> int:
    """The distance, in units, between valid prices at this one."""
    if exchange is Exchange.HOSE:
        if units < 10_000:
            return 10
        return 50 if units < 50_000 else 100
    return 1 if exchange is Exchange.INDEX else 100


def nearest_tick(exchange: Exchange, units: float) -> int:
    tick = tick_size(exchange, int(units))
    return int(units / tick + 0.5) * tick


def daily_limits(exchange: Exchange, reference: int) -> tuple[int, int]:
    """The lowest and highest valid price, in units, on the day after a close of ``reference``."""
    percent = DAILY_LIMIT[exchange]
    lowest = -(-reference * (100 - percent) // 100)
    highest = reference * (100 + percent) // 100
    low_tick, high_tick = tick_size(exchange, lowest), tick_size(exchange, highest)
    return -(-lowest // low_tick) * low_tick, highest // high_tick * high_tick


def session_minutes(day: dt.date) -> list[int]:
    """The epoch seconds at which each minute of the day's session begins, lunch left out."""
    midnight = epoch_of(day) - _ZONE_OFFSET
    return [
        midnight + second
        for second in chain.from_iterable(
            range(_seconds(opens), _seconds(closes), MINUTE)
            for opens, closes in (_MORNING, _AFTERNOON)
        )
    ]


def _seconds(time: dt.time) -> int:
    return time.hour * 3600 + time.minute * 60
