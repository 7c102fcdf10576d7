"""The settings of Django's cache, on one Redis server or on the primary that sentinels name."""

from typing import Any

from tickers.store.redis_client import Sentinels, uses_sentinels


def cache(url: str, *, timeout: float) -> dict[str, Any]:
    """Return the settings of the cache at ``url``; ``timeout`` (seconds) is for the connection and
    for each answer.

    With sentinels, reads go to the primary like writes, since a replica may lag behind a limit that
    was just used up: the default client with a connection factory that knows sentinels.
    """
    options: dict[str, Any] = {"SOCKET_CONNECT_TIMEOUT": timeout, "SOCKET_TIMEOUT": timeout}
    location = url
    if uses_sentinels(url):
        place = Sentinels.parse(url)
        location = f"redis://{place.service}/{place.database}"
        options |= {
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": list(place.nodes),
            "SENTINEL_KWARGS": place.sentinel_options(),
            # In LOCATION the name would become lower case.
            "CONNECTION_POOL_KWARGS": {"service_name": place.service},
            "USERNAME": place.username,
            "PASSWORD": place.password,
        }
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": location,
        "KEY_PREFIX": "proxy",
        "OPTIONS": options,
    }
