"""Bands limit how far a symbol's prices may move in one day.

A day's limits are the lowest and the highest price that a symbol can have on that day. They are
computed from the day's reference, the last trusted bar of an earlier day: its close, less and plus
a width, and one price step further, since exchanges round their limits to the step. UPCOM's own
reference is the average price of the day before, which no bar has; it lies between that day's low
and high, so UPCOM's limits are computed from both.

The widths are the exchanges' (HOSE 7 %, HNX 10 %, UPCOM 15 %; on a first day, and after 25 trading
days of silence, 20 %, 30 % and 40 %), or the network's usual 10 % where that is wider. An index has
the usual width.

Measured on 116,812 real bars (January 2024 to August 2025): 8 have a price outside these limits,
all of shares that were listed on UPCOM then. A day must not be judged by its own close: 562 bars
have an open, a high or a low further from it than the width.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from tickers.universe import Exchange

SILENCE = 25  # trading days without a bar; the day after more of them is like a first day

WIDTHS = {
    Exchange.HOSE: Decimal("0.07"),
    Exchange.HNX: Decimal("0.10"),
    Exchange.UPCOM: Decimal("0.15"),
}
FIRST_DAY_WIDTHS = {
    Exchange.HOSE: Decimal("0.20"),
    Exchange.HNX: Decimal("0.30"),
    Exchange.UPCOM: Decimal("0.40"),
}

# HOSE's price steps: (the lowest price, the step from it on), in VND.
_HOSE_STEPS = (
    (Decimal(50_000), Decimal(100)),
    (Decimal(10_000), Decimal(50)),
    (Decimal(0), Decimal(10)),
)
_STEP = Decimal(100)
_INDEX_STEP = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Range:
    """The prices from ``low`` to ``high``, both inclusive."""

    low: Decimal
    high: Decimal

    @classmethod
    def at(cls, price: Decimal) -> "Range":
        return cls(price, price)

    def __contains__(self, price: Decimal) -> bool:
        return self.low <= price <= self.high

    def including(self, other: "Range | None") -> "Range":
        if other is None:
            return self
        return Range(min(self.low, other.low), max(self.high, other.high))

    def widened(self, width: Decimal) -> "Range":
        """Return the range widened at each end by ``width``, a fraction of it: 0.10 is 10 %."""
        return Range(self.low * (1 - width), self.high * (1 + width))


def decimal(price: float) -> Decimal:
    """Return the price as it is written: in floats, exactly 10 % may come out as more."""
    return Decimal(repr(price))


def width(exchange: Exchange | None, *, usual: Decimal, first_day: bool = False) -> Decimal:
    """Return how far a price may be from its reference, as a fraction.

    ``usual`` is the network's rule (MAX_PRICE_CHANGE); ``exchange`` is None when it isn't known.
    """
    widths = FIRST_DAY_WIDTHS if first_day else WIDTHS
    return max(usual, widths.get(exchange, usual)) if exchange else usual


def reference_range(exchange: Exchange | None, *, low: float, high: float, close: float) -> Range:
    """Return the reference of the next day that an earlier day's bar gives."""
    if exchange is Exchange.UPCOM:
        return Range(decimal(low), decimal(high))
    return Range.at(decimal(close))


def day_limits(
    exchange: Exchange | None, reference: Range, width: Decimal, *, shown: Range | None = None
) -> Range:
    """Return the lowest and highest price by which a day's bar is judged.

    ``shown`` is the low and high that a trusted source has shown of that day already: what was
    traded is possible.
    """
    wide = reference.widened(width)
    stepped = Range(
        wide.low - price_step(exchange, wide.low), wide.high + price_step(exchange, wide.high)
    )
    return stepped.including(shown)


def ceiling_and_floor(exchange: Exchange, reference: Decimal) -> tuple[Decimal, Decimal]:
    """Return the highest and lowest price of a day as the exchange itself publishes them.

    Its own width applies, and the limits are rounded inward to its price step. Raises ValueError
    for an index, which has none.
    """
    if exchange is Exchange.INDEX:
        raise ValueError("an index has no ceiling and no floor")
    wide = Range.at(reference).widened(WIDTHS[exchange])
    return (
        _to_step(wide.high, price_step(exchange, wide.high), ROUND_FLOOR),
        _to_step(wide.low, price_step(exchange, wide.low), ROUND_CEILING),
    )


def price_step(exchange: Exchange | None, price: Decimal) -> Decimal:
    """Return the distance between two quotable prices at ``price``, in VND or an index's points."""
    if exchange is Exchange.INDEX:
        return _INDEX_STEP
    if exchange is Exchange.HOSE:
        return next((step for start, step in _HOSE_STEPS if price >= start), _HOSE_STEPS[-1][1])
    return _STEP


def _to_step(price: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (price / step).to_integral_value(rounding=rounding) * step
