"""A store on a real server, bars of a small market, and time that passes at once."""

import datetime as dt
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from proxy_site.local import embedded_redis
from tickers.bar import Bar
from tickers.market_clock import EXCHANGE_ZONE, MarketClock, is_trading_day
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, Store

MONDAY = dt.date(2025, 8, 11)
TUESDAY = dt.date(2025, 8, 12)
WEDNESDAY = dt.date(2025, 8, 13)
THURSDAY = dt.date(2025, 8, 14)
FRIDAY = dt.date(2025, 8, 15)
NEXT_MONDAY = dt.date(2025, 8, 18)

TRUST_WINDOW = 300.0  # seconds


def exchange_time(day: dt.date, hour: int) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour), tzinfo=EXCHANGE_ZONE)


def clock_at(moment: dt.datetime) -> MarketClock:
    return MarketClock(frozen_at=moment)


def bar(
    symbol: str = "VCB",
    day: dt.date = FRIDAY,
    *,
    close: float = 64_300,
    half_width: float = 100,
    volume: int = 1_000,
) -> Bar:
    """A bar that spans ``half_width`` VND on both sides of its close."""
    return Bar(symbol, day, close, close + half_width, close - half_width, close, volume)


def a_store(client: redis.Redis, *, at: dt.datetime | None = None, **options: Any) -> Store:
    """A store whose market clock stands at ``at``: the morning of Friday unless told."""
    moment = at or exchange_time(FRIDAY, 10)
    return Store(client, clock=clock_at(moment), **{"trust_window": TRUST_WINDOW, **options})


def lead(store: Store) -> str:
    """The fence of a lease that lasts longer than any test."""
    fence = store.acquire_lease(600)
    assert fence is not None
    return fence


def let_time_pass(client: redis.Redis, *, seconds: float) -> None:
    """As if so much time had passed: whatever the store dated lies that much further back."""
    reads: Any = client
    milliseconds = round(seconds * 1000)

    def earlier(text: bytes, *, dated: int) -> bytes:
        parts = text.split(b" ")
        parts[dated] = b"%d" % (int(parts[dated]) - milliseconds)
        return b" ".join(parts)

    for name, dated in (("last", 6), ("public", 1)):
        for symbol, text in reads.hgetall(f"{ROOT}:{name}").items():
            reads.hset(f"{ROOT}:{name}", symbol, earlier(text, dated=dated))
    for symbol, text in reads.hgetall(f"{ROOT}:held").items():
        held = [earlier(bar, dated=2) for bar in text.split(b";")[:-1]]
        reads.hset(f"{ROOT}:held", symbol, b"".join(bar + b";" for bar in held))
    for symbol, text in reads.hgetall(f"{ROOT}:laid").items():
        times = [b"%d" % (int(at) - milliseconds) for at in text.split(b" ")]
        reads.hset(f"{ROOT}:laid", symbol, b" ".join(times))
    for symbol, text in reads.hgetall(f"{ROOT}:disputed").items():
        reads.hset(f"{ROOT}:disputed", symbol, earlier(text, dated=1))
    if began := reads.get(f"{ROOT}:oldest_dispute"):
        reads.set(f"{ROOT}:oldest_dispute", earlier(began, dated=0))
    if noted := reads.get(f"{ROOT}:oldest_public"):
        reads.set(f"{ROOT}:oldest_public", earlier(noted, dated=1))
    for name in ("trusted_at", "cycle_at", "silent_at"):
        if reads.exists(f"{ROOT}:{name}"):
            reads.decrby(f"{ROOT}:{name}", milliseconds)


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    """Everything that the store wrote, but when a trusted source spoke last."""
    reads: Any = client
    spoke = (b":trusted_at", b":fetched_at")
    return {key: reads.dump(key) for key in reads.scan_iter() if not key.endswith(spoke)}


def wait_until(condition: Callable[[], bool], *, timeout: float = 5) -> None:
    """For what the server's own clock decides and nobody announces."""
    pause, deadline = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        pause.wait(0.005)


class OwnServer:
    """A server of one test's own, which may go away, come back, and forget everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = connect(embedded_redis.url(folder), timeout=5)
        self.start()

    def start(self) -> None:
        embedded_redis.ensure(self.folder)

    def stop(self) -> None:
        embedded_redis.release(self.folder)

    def forget(self) -> None:
        self.client.flushall()


def trading_days_before(day: dt.date, count: int) -> list[dt.date]:
    """The last ``count`` trading days before ``day``, the earliest first."""
    found: list[dt.date] = []
    while len(found) < count:
        day -= dt.timedelta(days=1)
        if is_trading_day(day):
            found.insert(0, day)
    return found
