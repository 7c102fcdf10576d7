"""Plausibility rules decide whether a public bar is of use, and whether it can be true.

A bar of no use can't be judged or says nothing new; nobody is at fault. An implausible bar counts
against its sender: its close is too far from the anchor (the symbol's last trusted close), or a
price is outside the day's limits. The anchor is never a public bar: ten bars, each 9.9 % above the
one before, moved a node that compares with what it serves from 64,300 to 150,380. The limits are
reckoned from the day's reference and not from the close, or a share could climb all day, 10 % at a
time.
"""

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal

from gossip.wire import Code
from tickers import bands
from tickers.bands import Range, decimal
from tickers.bar import Bar
from tickers.universe import Exchange

# A day's volume beyond this multiple of the largest of the last 60 days is noise, not news.
MAX_VOLUME_RATIO = 50
VOLUME_DAYS = 60

# Prices in thousands of VND are the usual mistake of a new sender. Such a price is 1/1000 of the
# anchor, give or take the widest band (40 %).
_THOUSAND = Decimal(1_000)
_UNIT_MISTAKE = Range.at(1 / _THOUSAND).widened(Decimal("0.40"))


@dataclass(frozen=True, slots=True)
class Known:
    """The values of a symbol by which a node judges a bar.

    ``anchor`` is the last trusted close, ``reference`` the prices that the last trusted bar of an
    earlier day gives, ``shown`` the low and high of the current day's trusted bar, and ``served``
    the bar that the node serves, of whatever day; each is None where there is no such bar.
    ``largest_volume`` is that of the last 60 trusted bars. With ``first_day``, the day's limits
    have the width of a first day.
    """

    anchor: Decimal | None
    reference: Range | None
    shown: Range | None
    served: Bar | None
    largest_volume: int
    exchange: Exchange | None
    first_day: bool = False
    is_suspect: bool = False

    def width(self, usual: Decimal) -> Decimal:
        return bands.width(self.exchange, usual=usual, first_day=self.first_day)


@dataclass(frozen=True, slots=True)
class Objection:
    """The reason why a bar is refused; ``values`` tell the sender what it was judged by."""

    code: Code
    values: dict[str, object] = field(default_factory=dict)


def objection(
    bar: Bar, known: Known | None, *, trading_day: dt.date, max_change: float
) -> Objection | None:
    """Return the first objection to a bar, or None; ``max_change`` 0.10 is 10 %."""
    if known is None:
        return Objection(Code.UNKNOWN_SYMBOL)
    if bar.day != trading_day:
        return Objection(Code.OTHER_DAY, {"trading_day": trading_day.isoformat()})
    if bar == known.served:
        return None
    if known.is_suspect:
        return Objection(Code.SUSPECT_SYMBOL)
    if known.anchor is None:
        return Objection(Code.NO_ANCHOR)
    return _of_volume(bar, known) or _of_prices(
        bar, known, known.anchor, known.width(decimal(max_change))
    )


def _of_volume(bar: Bar, known: Known) -> Objection | None:
    served = known.served.volume if known.served and known.served.day == bar.day else 0
    if bar.volume < served:
        return Objection(Code.SMALLER_VOLUME, {"volume": bar.volume, "served_volume": served})
    most = MAX_VOLUME_RATIO * known.largest_volume
    if known.largest_volume and bar.volume > most:
        return Objection(Code.HUGE_VOLUME, {"volume": bar.volume, "most_volume": most})
    return None


def _of_prices(bar: Bar, known: Known, anchor: Decimal, width: Decimal) -> Objection | None:
    close = decimal(bar.close)
    around = around_anchor(known, anchor, width)
    if close not in around and not (known.shown and close in known.shown):
        return _implausible("close", close, around, bar, known, anchor)
    limits = bands.day_limits(
        known.exchange, known.reference or Range.at(anchor), width, shown=known.shown
    )
    for name, price in zip(("open", "high", "low", "close"), map(decimal, bar.prices), strict=True):
        if price not in limits:
            return _implausible(name, price, limits, bar, known, anchor)
    return None


def around_anchor(known: Known, anchor: Decimal, width: Decimal) -> Range:
    """Return where a close may lie; a close exactly at the width from the anchor is inside.

    Before the day's first trusted bar, a UPCOM close may lie around all of yesterday's prices.
    """
    before_the_first = known.shown is None and known.exchange is Exchange.UPCOM
    at = Range.at(anchor)
    return (at.including(known.reference) if before_the_first else at).widened(width)


def _implausible(
    name: str, price: Decimal, limits: Range, bar: Bar, known: Known, anchor: Decimal
) -> Objection:
    values: dict[str, object] = {
        "price": {"name": name, "value": float(price)},
        "limits": [float(limits.low), float(limits.high)],
        "anchor": float(anchor),
        "day": bar.day.isoformat(),
        "served_volume": known.served.volume if known.served else None,
    }
    if price / anchor in _UNIT_MISTAKE:
        values["hint"] = (
            f"the {name} is about 1/1000 of the last close: prices are in VND (points for an "
            "index), not in thousands of VND"
        )
    return Objection(Code.IMPLAUSIBLE_PRICE, values)
