"""The nightly audit: after each close every series is read in full, and what differs is replaced.

So nothing outlives a day that an overlap doesn't reach: a hole of a truncated first load, a row
that was filled later, a small correction far back.
"""

import datetime as dt
import random
from typing import Any

from tickers.market_clock import EXCHANGE_ZONE, MarketClock
from tickers.store.store import Store

# Minutes of the day, at the exchange: an audit begins from 16:00 to 20:00. Each node takes a random
# one, so that they don't all ask at once.
FIRST, LAST = 16 * 60, 20 * 60
NAMED = 20  # symbols, at most, that a report names
_RANDOM = random.SystemRandom()


class Audits:
    """When this node's audits are due; what the last one found is kept in the store."""

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
        """Keep what an audit found; raises FencedError."""
        day = self._clock.today().isoformat()
        self._store.write_audit({"day": day, **report}, fence=fence)


def report(
    *, at: dt.datetime, read: int, changed: list[str], suspects: list[str]
) -> dict[str, Any]:
    """What an audit found, as the store and /health have it."""
    return {
        "at": at.astimezone(dt.UTC).isoformat(timespec="seconds"),
        "symbols_read": read,
        "symbols_changed": len(changed),
        "changed": sorted(changed)[:NAMED],
        "suspects": sorted(suspects)[:NAMED],
    }
