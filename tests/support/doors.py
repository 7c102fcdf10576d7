"""A node as its clients meet it: a market on the real server, both doors, and what can be away."""

import datetime as dt
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings
from django.core.cache import cache
from django.db import connections
from django.test import Client
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gossip.doors import laying
from reputation import actors
from reputation.models import Actor
from reputation.transitions import OperatorEvent
from tests.support.bars import wait_until
from tickers import wiring
from tickers.bar import Bar
from tickers.store.store import ROOT, Merged, Store
from tickers.verdict import Authority

TODAY, YESTERDAY = dt.date(2025, 8, 15), dt.date(2025, 8, 14)  # by the tests' market clock
HOME, AWAY = "203.0.113.9", "198.51.100.7"
NOWHERE = "redis://127.0.0.1:1"  # nobody listens on port 1

# One of each band: HOSE, HNX and INDEX move 10 % a day, UPCOM 15 %. In floats, both prices exactly
# 10 % from this VNINDEX come out as more.
ANCHORS = {"VCB": 64_300, "PVS": 35_000, "VNINDEX": 1600.08, "ACV": 100_000}
USUAL_VOLUME = 1_000_000


def a_bar(symbol: str = "VCB", *, day: dt.date = TODAY, **fields: Any) -> Bar:
    """A bar whose prices are the symbol's anchor, but for ``fields``."""
    price = fields.pop("price", ANCHORS.get(symbol, 10_000))
    prices: dict[str, float] = dict.fromkeys(("open", "high", "low", "close"), float(price))
    return Bar(symbol=symbol, day=day, **{**prices, "volume": USUAL_VOLUME, **fields})


def wire(symbol: Any = "VCB", *, day: dt.date = TODAY, **fields: Any) -> dict[str, Any]:
    """The same in wire form, where ``fields`` may be anything."""
    price = fields.pop("price", ANCHORS.get(symbol, 10_000))
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    time = f"{day}T00:00:00Z"
    return {"symbol": symbol, "time": time, **prices, "volume": USUAL_VOLUME, **fields}


def forget() -> None:
    """As in a new process: the market is put together from the settings again."""
    for part in (wiring.market_clock, wiring.store, wiring.snapshots, laying.claims):
        part.cache_clear()


@contextmanager
def lead(store: Store) -> Iterator[str]:
    """The fence of a worker that leads for a moment."""
    fence = store.acquire_lease(60)
    assert fence
    try:
        yield fence
    finally:
        store.release_lease(fence)


def complete_cycle() -> None:
    store = wiring.store()
    with lead(store) as fence:
        store.complete_cycle(fence=fence)


def merge_core(*bars: Bar) -> Merged:
    """Merge as a worker's own fetch."""
    store = wiring.store()
    with lead(store) as fence:
        return store.merge(bars, Authority.CORE, fence=fence)


def merge_later(*bars: Bar) -> None:
    """Merge bars that came after what was said before: the store's time is in milliseconds."""
    said = _now()
    wait_until(lambda: _now() > said)
    merge_core(*bars)


def _now() -> int:
    seconds, microseconds = wiring.store().client.time()
    return seconds * 1_000 + microseconds // 1_000


def fill_market() -> None:
    merge_core(*(a_bar(symbol, day=YESTERDAY) for symbol in ANCHORS))


@pytest.fixture
def empty_market(clean_server: redis.Redis) -> Iterator[Store]:
    """The node's store before anything came."""
    forget()
    yield wiring.store()
    forget()


@pytest.fixture
def market(empty_market: Store) -> Store:
    """The node's store with yesterday's trusted bars, and an open trust window."""
    fill_market()
    return empty_market


# One for all: each client puts the whole middleware together at its first request.
CLIENT = Client()


def send(
    path: str,
    body: object,
    *,
    address: str = HOME,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
    **environ: Any,
) -> Any:
    """The answer to a POST of ``body``: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    environ = {"REMOTE_ADDR": address, "CONTENT_TYPE": content_type, **environ}
    return CLIENT.generic("POST", path, data, headers=headers or {}, **environ)


def send_public(body: object, **options: Any) -> Any:
    return send("/public/gossip", body, **options)


def send_trusted(body: object, *, token: str | None = None, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {token or node_settings.PRIMARY_TOKEN}"}
    return send("/gossip", body, **{"headers": headers, **options})


def served(symbol: str = "VCB") -> dict[str, Any]:
    """The newest bar that GET /tickers serves of a symbol."""
    market = CLIENT.get("/tickers", {"symbol": symbol, "limit": "1"}).json()
    (bar,) = market[symbol]
    return dict(bar)


def footprint() -> tuple[Any, ...]:
    """What a refused request must leave as it was: the market, its overlays, and every record."""
    actors.flush()
    state = wiring.store().state()
    records = Actor.objects.values_list(
        "address", "status", "successful_updates", "failed_updates", "last_seen"
    )
    return state.position, state.overlays, state.age is None, sorted(map(str, records))


def record(address: str = HOME) -> tuple[str, int, int]:
    """An actor's status, successes and failures, with what is counted and not yet in SQL."""
    actors.flush()
    actor = Actor.objects.get(address=address)
    return actor.status, actor.successful_updates, actor.failed_updates


def by_operator(event: OperatorEvent, address: str = HOME) -> None:
    actor, _ = Actor.objects.get_or_create(address=address)
    actors.change_by_operator(actor=actor, event=event, operator="eve")
    # A test's transaction never commits, so what follows a commit is done by hand.
    cache.clear()


def make_late(server: redis.Redis, *, seconds: int) -> None:
    """As if the trusted bar of VCB had come that long ago: its time stands in ``last``."""
    reads: Any = server
    parts = reads.hget(f"{ROOT}:last", "VCB").split(b" ", 7)
    parts[6] = str(int(parts[6]) - seconds * 1_000).encode()
    reads.hset(f"{ROOT}:last", "VCB", b" ".join(parts))


# --- What may be sent ---------------------------------------------------------------------------


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
prices = st.sampled_from([64_300, 1659.7, 0, -0.0, -1, 1e308, 1e12, 10**400, True, "64300", None])
fields = st.fixed_dictionaries(
    {},
    optional={
        "symbol": st.sampled_from(["VCB", "vcb", "", "V B", "\ud800", "ß", "A" * 17]) | st.none(),
        "time": st.sampled_from(["2025-08-15", "2025-08-15T23:59:59Z", "0000-00-00", "", 1]),
        **dict.fromkeys(("open", "high", "low", "close"), prices),
        "volume": prices | st.sampled_from([2**53, 2**53 - 1, 1.5, 5.0]),
    },
).map(lambda changes: {**wire(), **changes})


bodies: st.SearchStrategy[Any] = st.one_of(
    fields,
    st.lists(fields, max_size=5),
    json_values,
    st.binary(),
    st.text().map(lambda text: text.encode("utf-16", errors="surrogatepass")),
)
# The market is the same for all of a test's bodies: what one leaves, the next one meets.
many_bodies = hypothesis_settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def satisfies_the_rules(bar: Bar) -> bool:
    return (
        all(math.isfinite(price) and price > 0 for price in bar.prices)
        and bar.low <= bar.close <= bar.high
        and isinstance(bar.volume, int)
        and 0 <= bar.volume < 2**53
    )


# --- What can be away -----------------------------------------------------------------------------


@contextmanager
def store_away(settings: Any) -> Iterator[None]:
    url, settings.REDIS_URL = settings.REDIS_URL, f"{NOWHERE}/0"
    forget()
    try:
        yield
    finally:
        settings.REDIS_URL = url
        forget()


@contextmanager
def store_lost(store: Store | None = None) -> Iterator[None]:
    """The server goes away under a process that has used it and keeps its snapshot.

    ``store``: through which it has; the doors' own unless told.
    """
    pool = (store or wiring.store()).client.connection_pool
    there = pool.connection_kwargs["path"]

    def move(path: str) -> None:
        pool.connection_kwargs["path"] = path
        pool.disconnect()
        pool.reset()  # connections remember the path they were made with

    move(f"{there}.gone")
    try:
        yield
    finally:
        move(there)


@contextmanager
def cache_away(settings: Any) -> Iterator[None]:
    caches = settings.CACHES
    settings.CACHES = {"default": {**caches["default"], "LOCATION": f"{NOWHERE}/1"}}
    try:
        yield
    finally:
        settings.CACHES = caches


@contextmanager
def database_away() -> Iterator[None]:
    working, config = connections["default"], connections.settings["default"]
    connections.settings["default"] = {
        **config,
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "/nonexistent/reputation.sqlite3",
        "OPTIONS": {},
    }
    connections["default"] = connections.create_connection("default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"], connections.settings["default"] = working, config
