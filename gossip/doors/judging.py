"""What speaks against a public bar, by what the node knows of its symbol."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from gossip.doors import plausibility
from gossip.doors.plausibility import Known
from gossip.wire import Code
from tickers import wiring
from tickers.bar import Bar, BarError, epoch_of
from tickers.snapshot.series import bar_of

# Seconds for which the histories that tell a symbol's usual volume may lag behind the store.
USUAL_VOLUME_LAG = 5.0
# Refused bars that are kept of a request; reputation keeps 2,000 bytes, of which each takes 150.
MOST_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bar that nothing speaks against, the anchor it was judged by, and the close that was served
    when it came."""

    bar: Bar
    anchor: str
    served_close: float


@dataclass(frozen=True, slots=True)
class Implausible:
    """A bar beyond the band, and the anchor that it is too far from."""

    bar: Bar
    anchor: str


Judged = Candidate | Implausible | Code | BarError


def judge(entries: Sequence[Bar | BarError]) -> list[Judged]:
    """What speaks against each entry, by what the store has now."""
    known = what_is_known({entry.symbol for entry in entries if isinstance(entry, Bar)})
    trading_day = wiring.market_clock().trading_day()
    return [
        entry
        if isinstance(entry, BarError)
        else _judged(entry, known.get(entry.symbol), trading_day)
        for entry in entries
    ]


def _judged(bar: Bar, known: Known | None, trading_day: dt.date) -> Judged:
    if not bar.opens_inside:
        return BarError("open must lie between low and high")
    against = plausibility.objection(
        bar, known, trading_day=trading_day, max_change=settings.MAX_PRICE_CHANGE
    )
    if against is not None and not against.is_failure:
        return against
    if known is None or known.anchor is None or known.served_close is None:
        raise ValueError("a bar can't be judged without a trusted close")
    if against is not None:
        return Implausible(bar, known.anchor)
    return Candidate(bar, known.anchor, known.served_close)


def evidence_of(refused: Sequence[Implausible]) -> list[object]:
    """What speaks against a sender: each bar as it was sent, with the anchor that it was judged by
    (a share's price moves by itself when its dividend is paid); the first few of many."""
    shown: list[object] = [
        {**json.loads(entry.bar.encode()), "anchor": json.loads(entry.anchor)}
        for entry in refused[:MOST_EVIDENCE]
    ]
    more = len(refused) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def what_is_known(symbols: set[str]) -> dict[str, Known]:
    store = wiring.store()
    newest, overlays = store.newest(symbols), store.overlays(symbols)
    lately = wiring.snapshots().recent(within=USUAL_VOLUME_LAG)
    volumes = lately.volumes(symbols, plausibility.VOLUME_DAYS)
    today = epoch_of(wiring.market_clock().trading_day())
    known = {}
    for symbol in symbols:
        bar, overlay = newest.get(symbol), overlays.get(symbol)
        if bar is None and symbol not in settings.UNIVERSE:
            continue
        served = overlay if overlay and overlay.day == today else bar
        known[symbol] = Known(
            anchor=bar.anchor if bar else None,
            served_volume=served.volume if served and served.day == today else 0,
            largest_volume=max([bar.volume if bar else 0, *volumes.get(symbol, [])]),
            exchange=settings.UNIVERSE.exchange(symbol),
            served_close=bar_of(served.json).close if served else None,
        )
    return known
