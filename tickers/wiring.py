"""The market of this process, put together from the settings: its clock, store and snapshots."""

import functools

from django.conf import settings

from tickers.market_clock import Calendar, MarketClock
from tickers.snapshot.listener import Listener
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.redis_client import connect
from tickers.store.store import Store


@functools.cache
def market_clock() -> MarketClock:
    return MarketClock(
        office_hours=settings.OFFICE_HOURS,
        calendar=Calendar(settings.EXTRA_HOLIDAYS, settings.EXTRA_TRADING_DAYS),
        frozen_at=settings.DEBUG_SYSTEM_TIME,
    )


# The first cycle of the office hours is done by then.
LATE_AFTER = 60.0


def source_late_after() -> float:
    """Return how long (seconds) our own source may be silent before it is late.

    That is two cycles of the worker at its present pace, and ``LATE_AFTER`` at least: what is
    fetched every 300 s at night isn't late after 60.
    """
    clock = market_clock()
    fast = clock.in_office_hours() and clock.in_office_hours(ago=LATE_AFTER)
    return max(LATE_AFTER, 2 * (settings.CYCLE if fast else settings.CYCLE_OUTSIDE_HOURS))


@functools.cache
def store() -> Store:
    return Store(
        connect(settings.REDIS_URL, timeout=settings.REDIS_TIMEOUT),
        clock=market_clock(),
        trust_window=settings.TRUST_WINDOW,
        max_symbols=settings.MAX_SYMBOLS,
        history_start=settings.HISTORY_START,
        silent_after=source_late_after,
    )


@functools.cache
def snapshots() -> SnapshotRefresher:
    refresher = SnapshotRefresher(
        store(),
        lifetime=settings.POSITION_LIFETIME,
        memory_limit=settings.SNAPSHOT_MEMORY * 2**20,
    )
    if settings.POSITION_LIFETIME:  # with 0 each read asks the store
        Listener(store(), refresher).start()
    return refresher
