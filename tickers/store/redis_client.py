"""This module connects to the server that holds the market, by its URL or by way of sentinels.

With sentinels all commands go to the primary, as a replica may lag behind a position that was given
out. During a failover every call raises redis.RedisError; the primary after it is another life of
the store (another run_id), hence another epoch.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SENTINEL_SCHEME = "redis+sentinel"
SENTINEL_PORT = 26_379
# Seconds after which the next sentinel is asked; they answer from memory.
SENTINEL_TIMEOUT = 1.0

_SENTINEL_URL = re.compile(
    r"redis\+sentinel://"
    r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<nodes>[^@/?#]+)/(?P<service>[^/?#]+)(?:/(?P<database>[0-9]{0,9}))?"
    r"(?:\?(?P<query>[^#]*))?"
)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The parts of a redis+sentinel:// URL.

    The credentials are for the Redis servers, and ``sentinel_password`` is for the sentinels.
    """

    nodes: tuple[tuple[str, int], ...]
    service: str
    database: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Sentinels":
        """Read a URL; raise ValueError for any other text than this (without the line break):

        redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[/database]
        [?sentinel_password=...]
        """
        found = _SENTINEL_URL.fullmatch(url)
        if found is None:
            raise ValueError("not redis+sentinel://HOST:PORT,.../SERVICE/DATABASE")
        options = dict(parse_qsl(found["query"] or "", strict_parsing=bool(found["query"])))
        sentinel_password = options.pop("sentinel_password", None)
        if options:
            raise ValueError("a sentinel URL has no option but sentinel_password")
        return cls(
            nodes=tuple(_node(part) for part in found["nodes"].split(",")),
            service=unquote(found["service"]),
            database=int(found["database"] or 0),
            username=unquote(found["username"] or "") or None,
            password=unquote(found["password"] or "") or None,
            sentinel_password=sentinel_password,
        )

    def same_database(self, other: "Sentinels") -> bool:
        """Return whether both lead to one database, whichever of the sentinels each names."""
        return (
            (self.service, self.database) == (other.service, other.database)
            and not set(self.nodes).isdisjoint(other.nodes)
        )  # fmt: skip

    def sentinel_options(self) -> dict[str, Any]:
        """Return the options of the connections to the sentinels themselves."""
        return {
            "password": self.sentinel_password,
            "socket_timeout": SENTINEL_TIMEOUT,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            # The library would try one that is away for some 7 s before it asks the next.
            "retry": Retry(NoBackoff(), 0),
        }


def uses_sentinels(url: str) -> bool:
    return url.partition(":")[0] == SENTINEL_SCHEME


def at_database(sentinel_url: str, database: int) -> str:
    """Return the same URL with another database."""
    found = _SENTINEL_URL.fullmatch(sentinel_url)
    if found is None:
        raise ValueError("not a sentinel URL")
    query = f"?{found['query']}" if found["query"] else ""
    return f"{sentinel_url[: found.end('service')]}/{database}{query}"


def connect(url: str, *, timeout: float) -> "redis.Redis":
    """Return a client that answers in ``timeout`` seconds or raises, without connecting yet.

    It survives a dropped connection. ``url`` is one that Sentinels.parse or redis.Redis.from_url
    reads.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "health_check_interval": 30,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), 1),
    }
    if not uses_sentinels(url):
        return redis.Redis.from_url(url, **options)
    place = Sentinels.parse(url)
    # redis-py leaves its sentinel classes untyped.
    manager: Any = Sentinel(  # type: ignore[no-untyped-call]
        place.nodes, sentinel_kwargs=place.sentinel_options()
    )
    client: redis.Redis = manager.master_for(
        place.service,
        db=place.database,
        username=place.username,
        password=place.password,
        **options,
    )
    return client


def _node(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.port == 0:
        raise ValueError("a sentinel is HOST or HOST:PORT")
    return parts.hostname, parts.port or SENTINEL_PORT
