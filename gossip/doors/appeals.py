"""Appeals: refused public bars that wait for the market to show that they were right.

A request that was refused as implausible waits. When trusted bars of the same day (our own fetch,
or a core network; not a peer's) cover all of its implausible bars, its failure is struck from the
sender's record, and a ban that rested on it ends. So a dividend that the upstream adjusts late, a
symbol's first day, or a unit error of our own costs no honest sender its place. A liar gains
nothing: nothing of the request was served, and an appeal earns no trust.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from tickers.bands import Range, decimal
from tickers.bar import Bar
from tickers.snapshot.series import bar_of
from tickers.store.records import Newest
from tickers.verdict import Authority

NEAR = Decimal("0.005")  # two honest sources of one moment differ by less
SHOWS = frozenset({Authority.CORE, Authority.FOLLOWED})


def covers(trusted: Bar, refused: Bar) -> bool:
    """Whether a trusted bar shows that a refused one of its symbol and day could be true: each of
    its prices lies within 0.5 % of what the trusted one has traded at."""
    traded = Range(decimal(trusted.low), decimal(trusted.high)).widened(NEAR)
    return (trusted.symbol, trusted.day) == (refused.symbol, refused.day) and all(
        decimal(price) in traded for price in refused.prices
    )


def is_granted(refused: Iterable[Bar], newest: Mapping[str, Newest]) -> bool:
    """Whether the trusted bars of today cover all bars of a request that were implausible."""
    return all(
        (found := newest.get(bar.symbol)) is not None
        and found.authority in SHOWS
        and covers(bar_of(found.json), bar)
        for bar in refused
    )
