"""Bands: how far a symbol's prices may move in one day.

A day's limits are the lowest and the highest price that a symbol can have on that day. They are
reckoned from the day's reference, the last trusted bar of an earlier day: its close, less and plus
a width, and one price step further, since exchanges round their limits to the step. UPCOM's own
reference is the average price of the day before, which no bar has; it lies between that day's low
and high, so UPCOM's limits are reckoned from both.

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

SILENCE = 25  # trading days without a bar; what comes after more is judged like a first day

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

# VND; HOSE's step of the prices from each of these on.
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
        """``width`` as a fraction of each end: 0.10 is 10 %."""
        return Range(self.low * (1 - width), self.high * (1 + width))


def decimal(price: float) -> Decimal:
    """The price as it is written. In floats, exactly 10 % from a price may come out as more."""
    return Decimal(repr(price))


def width(exchange: Exchange | None, *, usual: Decimal, first_day: bool = False) -> Decimal:
    """How far a price may be from its reference, as a fraction.

    ``usual`` is the network's rule (MAX_PRICE_CHANGE); ``exchange`` None: one that isn't known.
    """
    widths = FIRST_DAY_WIDTHS if first_day else WIDTHS
    return max(usual, widths.get(exchange, usual)) if exchange else usual


def reference_range(exchange: Exchange | None, *, low: float, high: float, close: float) -> Range:
    """The prices that an earlier day's bar gives as the reference of the next one."""
    if exchange is Exchange.UPCOM:
        return Range(decimal(low), decimal(high))
    return Range.at(decimal(close))


def day_limits(
    exchange: Exchange | None, reference: Range, width: Decimal, *, shown: Range | None = None
) -> Range:
    """The lowest and highest price of a day, for a judge.

    ``shown``: the low and high that a trusted source has shown of that day already; what was traded
    is possible.
    """
    wide = reference.widened(width)
    stepped = Range(
        wide.low - price_step(exchange, wide.low), wide.high + price_step(exchange, wide.high)
    )
    return stepped.including(shown)


def ceiling_and_floor(exchange: Exchange, reference: Decimal) -> tuple[Decimal, Decimal]:
    """The highest and lowest price of a day as the exchange itself publishes them: the width of its
    own rules, rounded inward to its price step. Raises ValueError for an index, which has none."""
    if exchange is Exchange.INDEX:
        raise ValueError("an index has no ceiling and no floor")
    wide = Range.at(reference).widened(WIDTHS[exchange])
    return (
        _to_step(wide.high, price_step(exchange, wide.high), ROUND_FLOOR),
        _to_step(wide.low, price_step(exchange, wide.low), ROUND_CEILING),
    )


def price_step(exchange: Exchange | None, price: Decimal) -> Decimal:
    """The distance between two prices that can be quoted at ``price``: VND, points of an index."""
    if exchange is Exchange.INDEX:
        return _INDEX_STEP
    if exchange is Exchange.HOSE:
        return next((step for start, step in _HOSE_STEPS if price >= start), _HOSE_STEPS[-1][1])
    return _STEP


def _to_step(price: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (price / step).to_integral_value(rounding=rounding) * step
