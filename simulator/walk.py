"""The random walk of the simulated market: it draws a day's whole bar first, then its parts.

A day's bar is drawn from the close before it. A minute's bar is a part of its day's, a step's a
part of its minute's: ``split`` cuts a bar into parts which, folded, are that bar again. So what a
reader sees during the day grows into the day's bar, nothing is computed before somebody asks, and
everything follows from (seed, symbol, time) alone.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from simulator.rules import LOT, daily_limits, nearest_tick, tick_size
from tickers.universe import Exchange, Listing

FEWEST_LOTS = 6  # of a bar: few, yet enough to reach its high and its low
NEWS = 5  # times the volatility, on a day with news


class WalkBar(NamedTuple):
    """A bar in whole units (simulator.rules); ``time`` is its beginning in epoch seconds."""

    time: int
    open: int
    high: int
    low: int
    close: int
    volume: int


class Character(NamedTuple):
    """The way in which a symbol trades, drawn once from the seed."""

    exchange: Exchange
    base: int  # units: the price it keeps coming back to
    volatility: float  # of a day's return
    volume: float  # shares, of a middling day
    activity: float  # 0 to 1: the part of the session's minutes in which it trades


def dice(*parts: object) -> random.Random:
    """Return a generator that gives the same numbers for the same parts in every process."""
    return random.Random(":".join(map(str, parts)))  # noqa: S311 - prices, not secrets


def character(listing: Listing, *, seed: int) -> Character:
    throw = dice(seed, listing.symbol, "character")
    exchange = listing.exchange
    if exchange is Exchange.INDEX:
        return Character(exchange, throw.randint(90_000, 160_000), 0.001, 8e8, 1.0)
    cheapest = 8_000 if exchange is Exchange.HOSE else 12_000
    base = cheapest * math.exp(throw.random() * math.log(10))
    # Fitted by eye to a real day's volumes and traded minutes: 20,000 shares in some 25 minutes at
    # the illiquid end, tens of millions in every minute at the other; HOSE is the liquid exchange.
    liquidity = throw.random() ** (0.7 if exchange is Exchange.HOSE else 1.5)
    return Character(
        exchange=exchange,
        base=nearest_tick(exchange, base),
        volatility=0.012 + 0.012 * throw.random(),
        volume=10 ** (4.1 + 3.3 * liquidity),
        activity=min(1.0, 0.03 + 1.4 * liquidity),
    )


def day_bar(
    who: Character, *, time: int, reference: int, trend: float, throw: random.Random
) -> WalkBar:
    """Draw the bar of the day after a close of ``reference``; ``trend`` is the market's return."""
    exchange = who.exchange
    lowest, highest = daily_limits(exchange, reference)

    def price(change: float) -> int:
        return min(max(nearest_tick(exchange, reference * (1 + change)), lowest), highest)

    # The pull to the base keeps years of history at prices where a price step is small.
    pull = 0.01 * math.log(who.base / reference)
    # The days with news are those that end at the limit.
    volatility = who.volatility * (NEWS if throw.random() < 0.01 else 1)
    change = trend + pull + volatility * throw.gauss(0, 1)
    gap = 0.3 * volatility * throw.gauss(0, 1)
    reach = 0.4 * volatility
    opening, close = price(gap), price(change)
    high = price(max(gap, change) + reach * abs(throw.gauss(0, 1)))
    low = price(min(gap, change) - reach * abs(throw.gauss(0, 1)))
    lots = max(FEWEST_LOTS, int(who.volume / LOT * math.exp(throw.gauss(0, 0.5))))
    return WalkBar(time, opening, high, low, close, lots * LOT)


def split(
    whole: WalkBar,
    *,
    exchange: Exchange,
    slots: Sequence[int],
    activity: float,
    throw: random.Random,
) -> list[WalkBar]:
    """Cut ``whole`` into parts, each at one of ``slots`` (epoch seconds), that fold into it again.

    Each part trades at least one lot, so there may be fewer parts than slots.
    """
    lots = whole.volume // LOT
    parts = min(lots, max(FEWEST_LOTS, round(activity * len(slots))), len(slots))
    times = slots if parts == len(slots) else sorted(throw.sample(slots, parts))
    at_high, at_low = throw.randrange(parts), throw.randrange(parts)
    waypoints = {at_high: whole.high, at_low: whole.low, parts - 1: whole.close}
    closes = _closes(whole, exchange=exchange, waypoints=waypoints, throw=throw)
    bars = []
    opening = whole.open
    for index, (time, close, volume) in enumerate(
        zip(times, closes, _volumes(lots, parts=parts, throw=throw), strict=True)
    ):
        wick = tick_size(exchange, close)
        high = min(whole.high, max(opening, close) + wick * int(throw.random() * 3))
        low = max(whole.low, min(opening, close) - wick * int(throw.random() * 3))
        high = whole.high if index == at_high else nearest_tick(exchange, high)
        low = whole.low if index == at_low else nearest_tick(exchange, low)
        bars.append(WalkBar(time, opening, high, low, close, volume))
        opening = close
    return bars


def fold(first: WalkBar, then: WalkBar) -> WalkBar:
    """Return both bars as one, at the time of the first."""
    return WalkBar(
        first.time,
        first.open,
        max(first.high, then.high),
        min(first.low, then.low),
        then.close,
        first.volume + then.volume,
    )


def _closes(
    whole: WalkBar, *, exchange: Exchange, waypoints: dict[int, int], throw: random.Random
) -> list[int]:
    """Walk from the open through the waypoints {index: price}, between the low and the high."""
    scale = (whole.high - whole.low) / (2 * math.sqrt(max(waypoints) + 1))
    closes: list[int] = []
    start = whole.open
    for index in sorted(waypoints):
        end = waypoints[index]
        steps = index + 1 - len(closes)
        noise = [0.0]
        for _ in range(steps):
            noise.append(noise[-1] + scale * throw.gauss(0, 1))
        # A Brownian bridge: the slope takes out what the noise would miss the waypoint by.
        slope = (end - start - noise[-1]) / steps
        for step in range(1, steps):
            price = nearest_tick(exchange, max(1, start + slope * step + noise[step]))
            closes.append(min(max(price, whole.low), whole.high))
        closes.append(end)
        start = end
    return closes


def _volumes(lots: int, *, parts: int, throw: random.Random) -> list[int]:
    """Divide ``lots`` among the parts by chance, at least one each; returns shares."""
    sums = [0.0]
    for _ in range(parts):
        sums.append(sums[-1] + throw.random())
    given = [int((lots - parts) * (value / sums[-1])) for value in sums]
    return [(1 + given[i + 1] - given[i]) * LOT for i in range(parts)]
