"""What of the store's server endangers a market: what is said, and that the worker says it once."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings

from proxy_site.housekeeping import Housekeeping
from proxy_site.redis_checks import complaints
from proxy_site.worker import Worker
from tests.proxy_site.test_worker import FRIDAY_11, PACE, Delivery, Script, quiet
from tests.support.nodes import wait_for
from tickers.market_clock import MarketClock
from tickers.store.redis_client import connect
from tickers.store.store import Store

SOUND = {"redis_version": "7.2.4", "aof_enabled": 1, "maxmemory_policy": "noeviction"}
EVICTS = "the store evicts keys: set maxmemory-policy noeviction"
AOF_OFF = "the store's append-only file is off: a restart loses the market"


@pytest.mark.parametrize("version", ["6.2", "6.2.0", "7.0.15", "10.0.1"])
def test_a_sound_server_is_no_danger(version: str) -> None:
    assert complaints(SOUND | {"redis_version": version}) == []


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "3.2"])
def test_a_server_that_is_too_old_is_a_danger(version: str) -> None:
    (line,) = complaints(SOUND | {"redis_version": version})
    assert version in line
    assert "install Redis 6.2 or newer, or Valkey" in line


def test_a_server_that_forgets_is_a_danger() -> None:
    assert complaints(SOUND | {"aof_enabled": 0}) == [AOF_OFF]
    assert complaints(SOUND | {"maxmemory_policy": "allkeys-lru"}) == [EVICTS]


def test_a_server_that_is_full_is_a_danger() -> None:
    full = {"maxmemory": 100, "used_memory": 120, "mem_not_counted_for_evict": 20}
    (line,) = complaints(SOUND | full)
    assert line.startswith("the store is out of memory")
    assert complaints(SOUND | full | {"mem_not_counted_for_evict": 21}) == []


def test_a_server_that_tells_nothing_of_itself_is_no_danger() -> None:
    assert complaints({}) == []


@pytest.fixture
def unsafe_server(clean_server: redis.Redis) -> Iterator[redis.Redis]:
    clean_server.config_set("appendonly", "no")
    clean_server.config_set("maxmemory-policy", "allkeys-lru")
    yield clean_server
    clean_server.config_set("maxmemory-policy", "noeviction")
    clean_server.config_set("appendonly", "yes")
    # A server that is writing its first append-only file refuses to shut down.
    wait_for(lambda: not rewriting(clean_server), "the append-only file")


def rewriting(server: redis.Redis) -> bool:
    reads: Any = server
    info = reads.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def test_the_worker_says_each_danger_once_as_it_starts(
    unsafe_server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    with connect(settings.REDIS_URL, timeout=5) as client:
        store = Store(client, clock=MarketClock(frozen_at=FRIDAY_11), trust_window=300)
        worker = Worker(
            store=store,
            clock=store.clock,
            sources=[Script(stop, [quiet, quiet, quiet])],
            delivery=Delivery(),
            housekeeping=Housekeeping({}),
            pace=PACE,
            mode="core",
            stop=stop,
        )
        with caplog.at_level(logging.WARNING, logger="proxy_site.worker"):
            worker.run()
    assert caplog.messages == [AOF_OFF, EVICTS]
