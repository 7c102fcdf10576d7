"""What the doctor sees of the node's own servers: Redis, the cache, the database, the worker."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connection
from django_redis import get_redis_connection

from proxy_site import (
    forgotten_proxies,
    health,
    market_health,
    ownership,
    pending_migrations,
    reasons,
    redis_checks,
)
from proxy_site.doctor.findings import Finding, error, ok, split_remedy, warning
from tickers import wiring


def look() -> list[Finding]:
    return [*of_redis(), *of_database(), of_worker(), of_market(), of_proxy()]


def of_redis() -> list[Finding]:
    return [*_of_store(), _of_cache(), _of_ownership()]


def _of_store() -> Iterator[Finding]:
    check, client = "redis", wiring.store().client
    try:
        info: Any = client.info()
    except redis.RedisError as failure:
        yield error(check, *split_remedy(reasons.of_store(failure)))
        return
    dangers = redis_checks.dangers(info)
    for danger in dangers:
        make = error if danger.loses else warning
        text, remedy = split_remedy(danger.text)
        yield make(check, text, danger.remedy or remedy)
    used = redis_checks.memory_used(info)
    if redis_checks.NEARLY_FULL <= used < 1:
        yield warning(check, f"the store has used {used:.0%} of its memory", "raise its maxmemory")
    if not dangers:
        yield ok(check, _description(client, info))


def _description(client: Any, info: dict[str, Any]) -> str:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    limit = info.get("maxmemory_human") if info.get("maxmemory") else "no limit"
    databases = ""
    with suppress(redis.RedisError):  # some servers forbid CONFIG
        databases = f", {client.config_get('databases')['databases']} databases"
    return (
        f"{name} {version}, append-only file, noeviction, "
        f"{info.get('used_memory_human')} used of {limit}{databases}"
    )


def _of_cache() -> Finding:
    check = "cache"
    try:
        get_redis_connection("default").ping()
    except redis.RedisError as failure:
        return error(check, *split_remedy(reasons.of_cache(failure)))
    return ok(check, "reachable")


def _of_ownership() -> Finding:
    check = "ownership"
    try:
        ownership.check(asks=True)
    except ownership.NotOursError as failure:
        return error(check, *split_remedy(str(failure)))
    except redis.RedisError:
        return warning(check, "whose the store and the cache are isn't known while one is away")
    return ok(check, "the store and the cache are no other node's")


def of_database() -> list[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        complaint = pending_migrations.complaint()
    except Error as failure:
        return [error("database", *split_remedy(reasons.of_database(failure)))]
    reached = ok("database", f"{connection.display_name} is reachable")
    if complaint:
        return [reached, error("migrations", *split_remedy(complaint))]
    return [reached, ok("migrations", "all are applied")]


def of_worker() -> Finding:
    """Return what is wrong with the worker's last cycle, as /health tells it."""
    check, problems = "worker", list[str]()
    try:
        store = wiring.store()
        health.check_worker(store.status(), problems, is_led=store.is_led())
    except redis.RedisError:
        return warning(check, "what it did isn't known while the store is away")
    if problems:
        return warning(check, "; ".join(problems))
    return ok(check, "its last cycle had no problem")


def of_market() -> Finding:
    """Return what is wrong with the market itself, as /health tells it."""
    check, problems = "market", list[str]()
    try:
        store = wiring.store()
        series = market_health.newest_series(store)
        market_health.of_symbols(store, store.state(), store.status(), series, problems)
    except redis.RedisError:
        return warning(check, "it isn't known while the store is away")
    if problems:
        return warning(check, "; ".join(problems), "see the symbols' fields in GET /health")
    return ok(check, f"{len(series)} symbols, none stale or suspect")


def of_proxy() -> Finding:
    """Return whether a proxy that isn't trusted forwards to this node, as its processes saw."""
    try:
        forgotten = forgotten_proxies.complaints()
    except redis.RedisError:
        return warning("proxy", "who forwards to this node isn't known while the cache is away")
    if forgotten:
        remedy = "name it in TRUSTED_PROXIES, and reload the API"
        return warning("proxy", "; ".join(forgotten), remedy)
    if settings.TRUSTED_PROXIES:
        return ok("proxy", f"X-Forwarded-For is believed of {', '.join(settings.TRUSTED_PROXIES)}")
    return ok("proxy", "no proxy is trusted; behind one, TRUSTED_PROXIES must name its address")
