"""Token failures: requests at the token door without a valid token are limited, counted and logged.

Only these ask the cache. A sender with a token is never counted and never locked out, not even
behind an address that guesses.
"""

import logging
from typing import NoReturn

import redis
from django.conf import settings
from django_ratelimit.core import get_usage
from django_redis import get_redis_connection
from rest_framework import exceptions
from rest_framework.request import Request

from gossip.client import peer_of_request
from gossip.wire import Code

logger = logging.getLogger(__name__)

MESSAGE = "Invalid or missing token"

_KEY = "proxy:token-failures"
_MINUTES = 60


def refuse(request: Request) -> NoReturn:
    """401, or 429 over TOKEN_FAILURE_RATE. Without the cache this raises, which is answered 503."""
    actor = peer_of_request(request)
    usage = get_usage(
        request._request,
        group="token-failures",
        key=lambda group, request: actor,
        rate=settings.TOKEN_FAILURE_RATE,
        increment=True,
    )
    _note()
    # An address gets two lines a period at most: a flood must not fill the log.
    if usage and usage["should_limit"]:
        if usage["count"] == usage["limit"] + 1:
            logger.warning("over %s failures of %s: 429", settings.TOKEN_FAILURE_RATE, actor)
        raise exceptions.Throttled(max(1, usage["time_left"]), code=Code.RATE_LIMITED.value)
    if usage and usage["count"] == 1:
        logger.warning("no valid token from %s", actor)
    raise exceptions.NotAuthenticated(MESSAGE, Code.INVALID_TOKEN.value)


def in_the_last_hour() -> int:
    """Return the failures of the last hour, to the minute, in all processes. Raises RedisError."""
    client = get_redis_connection("default")
    minute = _minute(client)
    counts = client.mget([f"{_KEY}:{minute - ago}" for ago in range(_MINUTES)])
    return sum(int(count) for count in counts if count)


def _note() -> None:
    client = get_redis_connection("default")
    key = f"{_KEY}:{_minute(client)}"
    with client.pipeline(transaction=False) as pipeline:
        pipeline.incr(key).expire(key, (_MINUTES + 1) * 60).execute()


def _minute(client: redis.Redis) -> int:
    """Return the minute by the server's clock, since the clocks of a node's hosts may differ."""
    seconds, _ = client.time()
    return int(seconds) // 60
