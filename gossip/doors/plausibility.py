"""Whether a public bar is of use, and whether it can be true.

Of no use: it can't be judged, or says nothing new; nobody's fault. Implausible: a price too far
from the anchor, the symbol's last trusted close. The anchor is never a public bar: ten bars, each
9.9 % above the one before, moved a node that compares with what it serves from 64,300 to 150,380.
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from gossip.wire import Code
from tickers.bar import Bar
from tickers.universe import Exchange

# Daily limits that are wider than the usual one: UPCOM shares may move 15 % a day.
WIDER_BANDS = {Exchange.UPCOM: Decimal("0.15")}

# A day's volume beyond this multiple of the largest of the last 60 days is noise, not news.
MAX_VOLUME_RATIO = 50
VOLUME_DAYS = 60


@dataclass(frozen=True, slots=True)
class Known:
    """What a node knows of a symbol when it judges a bar of it.

    ``anchor``: the last trusted close, as the store writes it; ``served_volume``: of the current
    day's bar that is served, 0 when there is none; ``served_close``: of what is served, of whatever
    day; ``largest_volume``: of the last 60 trusted bars.
    """

    anchor: str | None
    served_volume: int
    largest_volume: int
    exchange: Exchange | None
    served_close: float | None = None


def objection(
    bar: Bar, known: Known | None, *, trading_day: dt.date, max_change: float
) -> Code | None:
    """The first thing that speaks against a bar, or None; ``max_change`` 0.10 is 10 %."""
    if known is None:
        return Code.UNKNOWN_SYMBOL
    if bar.day != trading_day:
        return Code.OTHER_DAY
    if known.anchor is None:
        return Code.NO_ANCHOR
    if bar.volume < known.served_volume:
        return Code.SMALLER_VOLUME
    if known.largest_volume and bar.volume > MAX_VOLUME_RATIO * known.largest_volume:
        return Code.HUGE_VOLUME
    if not within_band(bar, Decimal(known.anchor), band(known.exchange, max_change)):
        return Code.IMPLAUSIBLE_PRICE
    return None


def band(exchange: Exchange | None, max_change: float) -> Decimal:
    usual = Decimal(repr(max_change))
    return max(usual, WIDER_BANDS.get(exchange, usual)) if exchange else usual


def within_band(bar: Bar, anchor: Decimal, limit: Decimal) -> bool:
    """Whether every price is at most ``limit`` from the anchor; exactly at the limit is within.

    Decimal, because in floats exactly 10 % may come out as more.
    """
    room = anchor * limit
    return all(abs(Decimal(repr(price)) - anchor) <= room for price in bar.prices)
