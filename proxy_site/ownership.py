"""Ownership: a store, and a cache, belong to one node; what belongs to another isn't used.

Two nodes on one store would lead by turns, and one that clears its cache would empty the market of
the node whose store that is. So a node leaves its identity in both, and doesn't start where it
finds another's. The identity is kept in the database: all processes of a node use one, on whatever
hosts, and two nodes have two.

While the store, the cache or the database is away nothing is known, and the start goes on. The
embedded server needs no mark: it and its data are found by DATA_DIR alone.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connection
from django.utils import timezone
from django_redis import get_redis_connection

from proxy_site import reasons
from tickers import wiring
from tickers.store.store import ROOT

STORE_MARK = "{market}:owner"
CACHE_MARK = "aipriceaction:owner"
MARKET = f"{ROOT}:revision"  # a store whose node hasn't left a mark yet has this key

PATIENCE = 5.0  # seconds for the database: reads must not wait for one that hangs
_ROW = 1  # the id of the table's only row

TAKE = (
    "give each node a Redis server or database of its own. If that node is gone, or is this one "
    "with another database, run manage.py take_store"
)
ANOTHER = "name another database, or empty this one where nothing uses it (redis-cli FLUSHDB)"

# The identity of a node that has made none yet, or has no tables for it: it has left no mark.
NONE_YET = "none yet"

_identity: list[str] = []  # once it is known


class NotOursError(Exception):
    """The store or the cache is another node's, or unusable; the message says what helps."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a node leaves in its store and its cache."""

    identity: str
    name: str
    since: str

    @classmethod
    def parse(cls, text: bytes | None) -> "Mark | None":
        try:
            found = json.loads(text or b"null")
            return cls(found["identity"], found["name"], found["since"])
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"{self.name}, since {self.since}"


def identity(*, makes: bool = True) -> str:
    """Return this node's identity; "" when the database doesn't tell it within ``PATIENCE``.

    The first process of a new node makes it, if it ``makes`` one.
    """
    if _identity:
        return _identity[0]
    answer: list[str] = []
    # A daemon of its own: a query on a database that hangs has no other end.
    asking = threading.Thread(target=_ask, args=(makes, answer), name="identity", daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if answer and answer[0] != NONE_YET:
        _identity[:] = answer
    return answer[0] if answer else ""


def _ask(makes: bool, answer: list[str]) -> None:
    # Models aren't loaded yet when the application's module is imported.
    from proxy_site.models import Node

    try:
        if makes:
            answer.append(Node.objects.get_or_create(pk=_ROW)[0].identity)
        else:
            row = Node.objects.filter(pk=_ROW).first()
            answer.append(row.identity if row else NONE_YET)
    except Error as error:
        # /health and the worker's log say what is wrong with the database.
        if reasons.lacks_tables(error):
            answer.append(NONE_YET)
    finally:
        connection.close()


def end_unless_ours() -> None:
    """End a process that starts, with one line, where the store or the cache is another node's.

    While one of them is away the start goes on: whoever uses it says so.
    """
    try:
        with contextlib.suppress(redis.RedisError):
            require()
    except NotOursError as error:
        sys.exit(f"aipriceaction-proxy: {error}")


def require() -> None:
    """Mark the store and the cache as this node's. Raises NotOursError, and RedisError."""
    _check(identity() if not settings.USES_EMBEDDED_SERVER else "", marks=True)


def check(*, asks: bool = False) -> None:
    """Raise NotOursError, or RedisError, as ``require`` does, but leave no mark.

    Unless it ``asks`` the database, a process that doesn't know its identity yet sees only other
    uses of the two databases.
    """
    ours = "".join(_identity)
    if asks and not settings.USES_EMBEDDED_SERVER:
        ours = identity(makes=False)
    _check(ours, marks=False)


def _check(ours: str, *, marks: bool) -> None:
    store, cache = _store(), _cache()
    mark = _new_mark(ours) if marks and ours not in ("", NONE_YET) else b""
    _refuse_cache_as_store(store)
    if ours:
        _refuse_other_owner(store, STORE_MARK, "REDIS_URL", "store", ours, mark)
    _refuse_store_as_cache(store, cache)
    if ours:
        _refuse_other_owner(cache, CACHE_MARK, reasons.cache_setting(), "cache", ours, mark)


def _refuse_other_owner(
    client: Any, key: str, setting: str, what: str, ours: str, mark: bytes
) -> None:
    if mark:
        client.set(key, mark, nx=True)
    found = Mark.parse(client.get(key))
    if found and found.identity != ours:
        raise NotOursError(f"{setting} names the {what} of another node ({found}): {TAKE}")


def _refuse_cache_as_store(store: Any) -> None:
    with _has_database("store"):
        whose = Mark.parse(store.get(CACHE_MARK))
    if whose:
        raise NotOursError(
            f"REDIS_URL names the cache of a node ({whose}), which may be cleared at any time: "
            f"{ANOTHER}"
        )


def _refuse_store_as_cache(store: Any, cache: Any) -> None:
    with _has_database("cache"):
        mark, has_market = cache.get(STORE_MARK), cache.exists(MARKET)
    if mark and mark == store.get(STORE_MARK):
        raise NotOursError(
            "CACHE_URL leads to the database of REDIS_URL: clearing the cache would clear the "
            "market. Name another database"
        )
    if mark or has_market:
        whose = Mark.parse(mark) or "without a mark"
        raise NotOursError(
            f"CACHE_URL, by default the next database of REDIS_URL, names the store of a node "
            f"({whose}), whose market would be cleared with the cache: {ANOTHER}"
        )


@contextlib.contextmanager
def _has_database(what: str) -> Iterator[None]:
    """Refuse a server that lacks the database; other errors pass, as they may end by themselves."""
    try:
        yield
    except redis.ResponseError as error:
        if not reasons.lacks_database(error):
            raise
        reason = reasons.of_store(error) if what == "store" else reasons.of_cache(error)
        raise NotOursError(reason) from None


def _store() -> Any:
    return wiring.store().client


def _cache() -> Any:
    return get_redis_connection("default")


def _new_mark(ours: str) -> bytes:
    since = timezone.now().strftime("%Y-%m-%d %H:%M UTC")
    return json.dumps({"identity": ours, "name": settings.NODE_NAME, "since": since}).encode()


def take() -> list[str]:
    """Mark the store and the cache as this node's, whosever they were.

    Returns a line for each that was another's. Raises NotOursError while a worker leads there.
    """
    store, cache = _store(), _cache()
    _refuse_cache_as_store(store)
    _refuse_store_as_cache(store, cache)
    ours = identity()
    if ours in ("", NONE_YET):
        raise NotOursError("the database doesn't tell this node's identity: run manage.py doctor")
    if wiring.store().leaders_fence():
        raise NotOursError(
            "a worker leads on this store: stop that node's processes, and try again 5 s later"
        )
    lines = []
    for client, key, what in ((store, STORE_MARK, "store"), (cache, CACHE_MARK, "cache")):
        before = Mark.parse(client.set(key, _new_mark(ours), get=True))
        if before and before.identity != ours:
            lines.append(f"the {what} was another node's ({before}), and is this one's now")
    return lines
