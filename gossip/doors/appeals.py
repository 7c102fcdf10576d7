"""Appeals: refused public bars wait for the market to show that they were right.

When trusted bars of the same day (our own fetch, or a core network's; not a peer's) cover all
implausible bars of a request, its failure is struck from the sender's record, and a ban that rested
on it ends. So a dividend that the upstream adjusts late, a symbol's first day, or a wrong unit of
our own costs no honest sender its status. A liar gains nothing: no bar of the request was served,
and an appeal earns no trust.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from reputation import actors, appeals
from tickers.bands import Range, decimal
from tickers.bar import Bar
from tickers.snapshot.series import bar_of
from tickers.store.records import Newest
from tickers.store.store import Store
from tickers.verdict import Authority

NEAR = Decimal("0.005")  # two honest sources of one moment differ by less
MOST_AT_ONCE = 500  # appeals that are examined in one turn
MOST_SHOWN = 8  # trusted bars that are kept as the evidence of a granted appeal
SHOWS = frozenset({Authority.CORE, Authority.FOLLOWED})


def covers(trusted: Bar, refused: Bar) -> bool:
    """Tell whether a trusted bar shows that a refused one could be true.

    It does if both are of one symbol and day, and each price of the refused bar lies within 0.5 %
    of what the trusted bar has traded at.
    """
    traded = Range(decimal(trusted.low), decimal(trusted.high)).widened(NEAR)
    return (trusted.symbol, trusted.day) == (refused.symbol, refused.day) and all(
        decimal(price) in traded for price in refused.prices
    )


def is_granted(refused: Iterable[Bar], newest: Mapping[str, Newest]) -> bool:
    """Tell whether today's trusted bars cover all of a request's implausible bars."""
    return all(
        (found := newest.get(bar.symbol)) is not None
        and found.authority in SHOWS
        and covers(bar_of(found.json), bar)
        for bar in refused
    )


def written(refused: Iterable[Bar]) -> list[list[object]]:
    """Encode the implausible bars of a request as an appeal keeps them."""
    return [[bar.symbol, bar.day.isoformat(), *bar.prices] for bar in refused]


def read(content: Sequence[Sequence[Any]]) -> list[Bar]:
    """Decode what ``written`` encoded; volumes aren't kept, and are 0."""
    return [
        Bar(symbol, dt.date.fromisoformat(day), first, high, low, close, volume=0)
        for symbol, day, first, high, low, close in content
    ]


class Hearing:
    """An examination of the open appeals, so many in each turn."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = 0  # the primary key of the appeal that was examined last

    def turn(self) -> int:
        """Examine the next appeals, and grant those that the market supports; returns how many."""
        appeals.lapse()
        waiting = appeals.waiting(after=self._last, most=MOST_AT_ONCE)
        self._last = waiting[-1].pk if len(waiting) == MOST_AT_ONCE else 0
        refused = {appeal: read(appeal.content) for appeal in waiting}
        symbols = {bar.symbol for bars in refused.values() for bar in bars}
        newest = self._store.newest(symbols - self._store.suspects().keys())
        granted = 0
        for appeal, bars in refused.items():
            if is_granted(bars, newest):
                shown = [newest[bar.symbol].json.decode() for bar in bars[:MOST_SHOWN]]
                granted += actors.grant(appeal=appeal, evidence=shown) is not None
        return granted
