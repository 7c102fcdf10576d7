"""The nightly audit reads every series in full after the close and replaces what differs.

So no fault that an overlap doesn't reach outlives a day: a gap of a truncated first load, a row
that the source filled later, a small correction far back.
"""

import datetime as dt
import random
from typing import Any

from tickers.market_clock import EXCHANGE_ZONE, MarketClock
from tickers.store.store import Store

# An audit begins from 16:00 to 20:00 exchange time (in minutes of the day). Each node draws a
# random minute, so that they don't all ask at once.
FIRST, LAST = 16 * 60, 20 * 60
NAMED = 20  # symbols, at most, that a report names
_RANDOM = random.SystemRandom()


class Audits:
    """The times of this node's audits; the report of the last one is kept in the store."""

    def __init__(self, store: Store, clock: MarketClock) -> None:
        self._store = store
        self._clock = clock
        self._minutes: dict[dt.date, int] = {}

    def is_due(self) -> bool:
        local = self._clock.now().astimezone(EXCHANGE_ZONE)
        today = local.date()
        if not self._clock.calendar.is_trading_day(today):
            return False
        minute = self._minutes.get(today)
        if minute is None:
            minute = _RANDOM.randint(FIRST, LAST)
            self._minutes = {today: minute}
        if local.hour * 60 + local.minute < minute:
            return False
        return self._store.audit().get("day") != today.isoformat()

    def note(self, report: dict[str, Any], *, fence: str) -> None:
        """Keep an audit's report; raise FencedError."""
        day = self._clock.today().isoformat()
        self._store.write_audit({"day": day, **report}, fence=fence)


def report(
    *, at: dt.datetime, read: int, changed: list[str], suspects: list[str]
) -> dict[str, Any]:
    """Return an audit's report as the store and /health have it."""
    return {
        "at": at.astimezone(dt.UTC).isoformat(timespec="seconds"),
        "symbols_read": read,
        "symbols_changed": len(changed),
        "changed": sorted(changed)[:NAMED],
        "suspects": sorted(suspects)[:NAMED],
    }
