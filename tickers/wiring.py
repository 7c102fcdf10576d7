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


@functools.cache
def store() -> Store:
    return Store(
        connect(settings.REDIS_URL, timeout=settings.REDIS_TIMEOUT),
        clock=market_clock(),
        trust_window=settings.TRUST_WINDOW,
        max_symbols=settings.MAX_SYMBOLS,
        history_start=settings.HISTORY_START,
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
