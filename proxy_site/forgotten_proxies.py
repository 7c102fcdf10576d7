"""A forgotten proxy stands in front of the node, and TRUSTED_PROXIES doesn't name it.

All clients behind it are one sender then, so that a few wrong bars of one ban them all. It shows by
a header that proxies add, in a request from this machine or a private network; nobody on the
internet has such an address. Each process notes what it sees in the cache, for /health and the log.
"""

import functools
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

import redis
from django.conf import settings
from django_redis import get_redis_connection

from reputation.address import untrusted_neighbour

logger = logging.getLogger(__name__)

HEADERS = {
    "HTTP_X_FORWARDED_FOR": "X-Forwarded-For",
    "HTTP_X_REAL_IP": "X-Real-IP",
    "HTTP_FORWARDED": "Forwarded",
}
REMEMBERED = 300  # seconds; a proxy that was silent for longer may be gone
NOTE_EVERY = 60.0  # seconds between two notes of one address by one process
MOST = 10  # addresses that are remembered

_KEY = "proxy:forgotten-proxies"  # sorted set: "address header" → when it was last seen (seconds)
_noted: dict[str, float] = {}  # address → when this process noted it last, in monotonic seconds


def watch(meta: Mapping[str, Any]) -> None:
    """Note the sender of a request (its WSGI variables) if it is a forgotten proxy."""
    header = next((header for name, header in HEADERS.items() if meta.get(name)), None)
    if header is None:
        return
    address = _neighbour(meta.get("REMOTE_ADDR", ""), tuple(settings.TRUSTED_PROXIES))
    if address is None:
        return
    now, is_new = time.monotonic(), address not in _noted
    if now - _noted.get(address, -NOTE_EVERY) < NOTE_EVERY:
        return
    if is_new and len(_noted) >= MOST:
        for other, at in list(_noted.items()):
            if now - at >= REMEMBERED:
                _noted.pop(other, None)
        if len(_noted) >= MOST:
            return
    _noted[address] = now  # also where the cache is away: no further request waits for it
    if _note(address, header, is_new=is_new):
        logger.warning("%s", _complaint(address, header))


def complaints() -> list[str]:
    """Return a line for each forgotten proxy that any process has seen lately.

    One that TRUSTED_PROXIES names by now is none. Raises RedisError.
    """
    client = get_redis_connection("default")
    now = int(client.time()[0])
    entries = client.zrange(_KEY, now - REMEMBERED, "+inf", byscore=True)
    seen = sorted(entry.decode().split(" ", 1) for entry in entries)
    trusted = tuple(settings.TRUSTED_PROXIES)
    return [_complaint(address, header) for address, header in seen if _neighbour(address, trusted)]


def _note(address: str, header: str, *, is_new: bool) -> bool:
    """Note it for all processes; return whether nobody has noted it lately."""
    try:
        client = get_redis_connection("default")
        now = int(client.time()[0])
        with client.pipeline(transaction=False) as pipeline:
            pipeline.zremrangebyscore(_KEY, "-inf", now - REMEMBERED)
            pipeline.zadd(_KEY, {f"{address} {header}": now})
            pipeline.zremrangebyrank(_KEY, 0, -MOST - 1)  # all but the latest
            pipeline.expire(_KEY, REMEMBERED)
            _, added, *_ = pipeline.execute()
    except redis.RedisError:  # /health says so
        return is_new
    return bool(added)


def _complaint(address: str, header: str) -> str:
    return (
        f"{header} comes from {address}, which TRUSTED_PROXIES doesn't name: all clients behind it "
        "are judged as one"
    )


@functools.lru_cache(maxsize=1_000)
def _neighbour(peer: str, trusted: Collection[str]) -> str | None:
    return untrusted_neighbour(peer=peer, trusted_proxies=trusted)
