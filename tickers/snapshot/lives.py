"""This module decides when a process that serves a market changes to another life of the store.

A server that was emptied, or came back older, has a new epoch and at first no market, or half of
one. The process goes on serving its snapshot until the new life's market is about as large.
"""

import datetime as dt
import time

from tickers.bar import epoch_of
from tickers.market_clock import Calendar
from tickers.snapshot.series import Series
from tickers.snapshot.snapshot import Snapshot
from tickers.store.records import State
from tickers.store.store import Store

FILLED = 0.95  # the part of the served symbols that a complete new market must have
HALF = 0.5  # the part that is enough after PATIENCE, with a problem in /health
PATIENCE = 1_800.0  # seconds
ABSENT = 5  # trading days without a bar after which a symbol isn't waited for


class Lives:
    """The choice of the life of ``store`` that a process serves."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_whole = False  # the served market was complete at some time
        self._waiting_since: float | None = None  # monotonic seconds; None: for no other life
        self._filled = self._wanted = 0
        self._before: frozenset[str] = frozenset()  # symbols served of the life before

    @property
    def is_waiting(self) -> bool:
        """Return whether the store has another epoch than the served market."""
        return self._waiting_since is not None

    def take_over(self, state: State, held: Snapshot | None) -> bool:
        """Return whether to serve the store's market as it is now, instead of ``held``."""
        if held is not None and held.position.epoch != state.position.epoch:
            if not self._yields(state, held):
                return False
            self._before = frozenset(self._awaited(held))
            self._is_whole = False
        self._waiting_since = None
        self._is_whole = self._is_whole or state.ready_epoch == state.position.epoch
        return True

    def _yields(self, state: State, held: Snapshot) -> bool:
        if not held.series:
            return True
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        waited = time.monotonic() - self._waiting_since
        is_ready = state.ready_epoch == state.position.epoch
        awaited = self._awaited(held)
        lengths = self._store.lengths(list(awaited))
        self._wanted = len(awaited)
        self._filled = sum(
            2 * lengths.get(symbol, 0) >= max(1, _length(series))
            for symbol, series in awaited.items()
        )
        if not self._is_whole:
            return bool(self._filled)
        if is_ready and self._filled >= FILLED * self._wanted:
            return True
        return waited >= PATIENCE and self._filled >= HALF * self._wanted

    def _awaited(self, held: Snapshot) -> dict[str, Series]:
        """Return the series that another life has to fill: those with a bar of the last days.

        If there are none, they are all.
        """
        clock = self._store.clock
        first = epoch_of(_days_before(clock.calendar, clock.trading_day(), ABSENT))
        lately = {name: one for name, one in held.series.items() if one.day > first}
        return lately or dict(held.series)

    def complaints(self, served: Snapshot | None) -> list[str]:
        if self.is_waiting:
            return [
                "the store has begun another life, which fills "
                f"{self._filled} of {self._wanted} symbols that are served; "
                "the market of the last one goes on being served"
            ]
        lacking = self._before - (served.series.keys() if served else frozenset())
        if self._before and len(lacking) > (1 - FILLED) * len(self._before):
            return [
                f"the market lacks {len(lacking)} of {len(self._before)} symbols that were served "
                "before the store began another life"
            ]
        return []


def _days_before(calendar: Calendar, day: dt.date, count: int) -> dt.date:
    """Return the ``count``-th trading day before a day."""
    while count:
        day -= dt.timedelta(days=1)
        count -= calendar.is_trading_day(day)
    return day


def _length(series: Series) -> int:
    """Return how many bars a series has; 1 where the history isn't held."""
    return 1 if series.history is None else len(series.history) + 1
