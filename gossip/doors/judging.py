"""Judging applies the plausibility rules to a public bar, by what the node knows of its symbol."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings

from gossip.doors import plausibility
from gossip.doors.plausibility import Known, Objection
from tickers import bands, wiring
from tickers.bands import Range, decimal
from tickers.bar import Bar, BarError, epoch_of
from tickers.snapshot.series import bar_of
from tickers.store.records import Facts

# Seconds by which the histories with a symbol's usual volume may lag behind the store.
USUAL_VOLUME_LAG = 5.0
# Refused bars of a request that are kept; reputation keeps 2,000 bytes, and each bar takes 200.
MOST_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bar without an objection, and the values it was judged by.

    These are the last trusted close as the store writes it, the store's facts, and the close that
    was served when the bar came.
    """

    bar: Bar
    anchor: str
    facts: Facts
    served_close: float


@dataclass(frozen=True, slots=True)
class Implausible:
    """A bar that can't be true, with the objection to it."""

    bar: Bar
    objection: Objection


Judged = Candidate | Implausible | Objection | BarError


def judge(entries: Sequence[Bar | BarError]) -> list[Judged]:
    """Judge each entry by what the store has now; the results are in the same order.

    If a bar is implausible, all are judged again by what was read anew: at the opening, and when a
    day closes, no failure may be recorded because of a value that has just changed.
    """
    judged = _judge(entries)
    return _judge(entries) if any(isinstance(entry, Implausible) for entry in judged) else judged


def _judge(entries: Sequence[Bar | BarError]) -> list[Judged]:
    trading_day = wiring.market_clock().trading_day()
    bars = [entry for entry in entries if isinstance(entry, Bar)]
    facts = wiring.store().facts({bar.symbol for bar in bars})
    known = what_is_known(facts, trading_day)
    return [
        entry
        if isinstance(entry, BarError)
        else _judged(entry, known.get(entry.symbol), facts[entry.symbol], trading_day)
        for entry in entries
    ]


def _judged(bar: Bar, known: Known | None, facts: Facts, trading_day: dt.date) -> Judged:
    if not bar.opens_inside:
        return BarError("open must lie between low and high")
    objection = plausibility.objection(
        bar, known, trading_day=trading_day, max_change=settings.MAX_PRICE_CHANGE
    )
    if objection is None:
        if facts.newest is None or known is None or known.served is None:
            raise ValueError("a bar can't be judged without a trusted close")
        return Candidate(bar, facts.newest.anchor, facts, known.served.close)
    return Implausible(bar, objection) if objection.code.is_failure else objection


def evidence_of(refused: Sequence[Implausible]) -> list[object]:
    """Return the evidence against a sender: the first eight bars as sent, and how many more.

    Each has the anchor and the limits that it was judged by, as these change later (a dividend
    moves a share's price).
    """
    shown: list[object] = [
        {
            **json.loads(entry.bar.encode()),
            "anchor": entry.objection.values["anchor"],
            "limits": entry.objection.values["limits"],
        }
        for entry in refused[:MOST_EVIDENCE]
    ]
    more = len(refused) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def what_is_known(facts: dict[str, Facts], trading_day: dt.date) -> dict[str, Known]:
    """Return what is known, by symbol; symbols in neither store nor universe are left out."""
    lately = wiring.snapshots().recent(within=USUAL_VOLUME_LAG)
    volumes = lately.volumes(facts, plausibility.VOLUME_DAYS)
    return {
        symbol: _known(symbol, of, volumes.get(symbol, []), trading_day)
        for symbol, of in facts.items()
        if of.newest is not None or symbol in settings.UNIVERSE
    }


def _known(symbol: str, facts: Facts, volumes: Sequence[int], trading_day: dt.date) -> Known:
    exchange = settings.UNIVERSE.exchange(symbol)
    newest, overlay, today = facts.newest, facts.overlay, epoch_of(trading_day)
    trusted = bar_of(newest.json) if newest else None
    served = bar_of(overlay.json) if overlay and overlay.day == today else trusted
    is_todays = trusted is not None and trusted.day == trading_day
    earlier = (bar_of(facts.before) if facts.before else None) if is_todays else trusted
    return Known(
        anchor=Decimal(newest.anchor) if newest else None,
        reference=bands.reference_range(
            exchange, low=earlier.low, high=earlier.high, close=earlier.close
        )
        if earlier
        else None,
        shown=Range(decimal(trusted.low), decimal(trusted.high)) if trusted and is_todays else None,
        served=served,
        largest_volume=max([trusted.volume if trusted else 0, *volumes]),
        exchange=exchange,
        first_day=_is_first_day(facts, earlier, trading_day),
        is_suspect=facts.is_suspect,
    )


def _is_first_day(facts: Facts, earlier: Bar | None, trading_day: dt.date) -> bool:
    """Return whether the day's limits have the width of a first day.

    They have if a history loaded from before the day has no earlier bar, none in the last 25
    trading days, or none since the symbol moved to another exchange.
    """
    if earlier is None:
        return facts.loaded_from is not None and facts.loaded_from < epoch_of(trading_day)
    if earlier.epoch <= facts.moved_on:
        return True
    calendar = wiring.market_clock().calendar
    return calendar.trading_days_between(earlier.day, trading_day) > bands.SILENCE
