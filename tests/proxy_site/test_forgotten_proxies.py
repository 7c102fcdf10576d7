"""A proxy that TRUSTED_PROXIES doesn't name is a problem in /health, and one line of the log."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django_redis import get_redis_connection

from proxy_site import forgotten_proxies
from tests.support.doors import CLIENT, cache_away, empty_market, market
from tickers.store.store import Store

__all__ = ["empty_market", "market"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("market")]

NEAR, NAMED = "10.0.0.5", "203.0.113.9"
WHY = "which TRUSTED_PROXIES doesn't name: all clients behind it are judged as one"


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    forgotten_proxies._noted.clear()
    yield
    forgotten_proxies._noted.clear()


def call(address: str = NEAR, path: str = "/tickers", **headers: str) -> None:
    headers = headers or {"X_Forwarded_For": NAMED}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert CLIENT.get(path, headers=named, REMOTE_ADDR=address).status_code < 500


def told() -> list[str]:
    problems = CLIENT.get("/health", REMOTE_ADDR=NAMED).json()["problems"]
    return [line for line in problems if "TRUSTED_PROXIES" in line]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
@pytest.mark.parametrize("path", ["/tickers", "/", "/nothing", "/public/gossip"])
def test_one_shows_by_any_header_that_proxies_add(header: str, path: str) -> None:
    call(path=path, **{header: NAMED})
    assert told() == [f"{header} comes from 10.0.0.5, {WHY}"]


def test_health_that_is_read_through_it_says_so_at_once() -> None:
    headers = {"X-Forwarded-For": NAMED}
    answer = CLIENT.get("/health", headers=headers, REMOTE_ADDR="127.0.0.1")
    assert f"X-Forwarded-For comes from 127.0.0.1, {WHY}" in answer.json()["problems"]


@pytest.mark.parametrize("stranger", ["8.8.8.8", NAMED, "2001:db8::1", "172.32.0.1"])
def test_no_stranger_can_pose_as_one(stranger: str) -> None:
    call(stranger, X_Forwarded_For="10.0.0.5", X_Real_IP="127.0.0.1", Forwarded="for=10.0.0.5")
    assert told() == []


def test_a_neighbour_that_forwards_for_nobody_is_none() -> None:
    call(X_Forwarded_For="", X_Forwarded_Host="a", Via="1.1 b")
    assert told() == []


def test_it_ends_when_it_is_trusted(settings: Any) -> None:
    call()
    assert told()
    settings.TRUSTED_PROXIES = ["10.0.0.0/24"]
    assert told() == []
    call()
    assert told() == []


def test_it_ends_when_it_is_seen_no_more(clean_server: redis.Redis) -> None:
    call()
    cache, key = get_redis_connection("default"), forgotten_proxies._KEY
    assert 0 < cache.ttl(key) <= forgotten_proxies.REMEMBERED
    (entry,) = cache.zrange(key, 0, -1)
    cache.zincrby(key, -forgotten_proxies.REMEMBERED - 1, entry)
    assert told() == []


def test_many_requests_of_many_processes_make_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            forgotten_proxies._noted.clear()  # another process
            for _ in range(5):
                call()
    assert caplog.text.count(WHY) == 1
    assert len(told()) == 1


def test_a_flood_of_a_whole_private_network_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    for host in range(200):
        call(f"10.0.0.{host}")
    assert len(told()) == len(forgotten_proxies._noted) == forgotten_proxies.MOST
    for host in range(200):
        forgotten_proxies._noted.clear()
        call(f"10.0.1.{host}")
    assert len(told()) == forgotten_proxies.MOST


def test_without_the_cache_it_is_in_the_log_and_costs_a_request_a_minute(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    connect = get_redis_connection

    def counted(alias: str) -> Any:
        asked.append(alias)
        return connect(alias)

    monkeypatch.setattr(forgotten_proxies, "get_redis_connection", counted)
    with cache_away(settings):
        for _ in range(5):
            call()
    assert caplog.text.count(WHY) == 1
    assert len(asked) == 1


def test_probes_wait_for_no_cache(settings: Any) -> None:
    call(path="/livez")
    call(path="/readyz")
    assert forgotten_proxies._noted == {}


def test_what_can_be_served_is_served_all_the_same(market: Store) -> None:
    headers = {"X-Forwarded-For": NAMED}
    assert CLIENT.get("/tickers", headers=headers, REMOTE_ADDR=NEAR).status_code == 200
