"""The exchange rules that simulated prices keep: session, price steps and daily limits.

Prices here are whole units (VND for a share, hundredths of a point for an index), so that no
rounding error leaves the grid of price steps. The exchanges' own limits and steps are in
tickers.bands. An index has no limit; it gets a small one here, because a whole market seldom moves
further.
"""

import datetime as dt
import functools
from decimal import Decimal
from itertools import chain

from tickers import bands
from tickers.bar import epoch_of
from tickers.universe import Exchange

LOT = 100  # shares
MINUTE = 60  # seconds
_FINEST = 1_000  # units: no exchange's step changes between two multiples of it
STEP = 2  # seconds: the finest time at which a simulated price changes

INDEX_LIMIT = 3  # percent
UNITS_PER_POINT = 100

_ZONE_OFFSET = 7 * 3600  # Vietnam has kept UTC+7, without summer time, since 1975
_MORNING = (dt.time(9, 15), dt.time(11, 30))
_AFTERNOON = (dt.time(13, 0), dt.time(14, 45))


def units_per_price(exchange: Exchange) -> int:
    return UNITS_PER_POINT if exchange is Exchange.INDEX else 1


def tick_size(exchange: Exchange, units: int) -> int:
    """Return the price step at a price, both in units."""
    if exchange is Exchange.INDEX:
        return 1
    return _share_tick(exchange, units // _FINEST * _FINEST)


@functools.lru_cache(maxsize=4_096)
def _share_tick(exchange: Exchange, units: int) -> int:
    return int(bands.price_step(exchange, Decimal(units)))


def nearest_tick(exchange: Exchange, units: float) -> int:
    tick = tick_size(exchange, int(units))
    return int(units / tick + 0.5) * tick


def daily_limits(exchange: Exchange, reference: int) -> tuple[int, int]:
    """Return the lowest and highest price of the day after a close of ``reference``, in units."""
    if exchange is Exchange.INDEX:
        lowest = -(-reference * (100 - INDEX_LIMIT) // 100)
        return lowest, reference * (100 + INDEX_LIMIT) // 100
    ceiling, floor = bands.ceiling_and_floor(exchange, Decimal(reference))
    return int(floor), int(ceiling)


def session_minutes(day: dt.date) -> list[int]:
    """Return the epoch seconds at which each minute of the day's session begins, without lunch."""
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
