"""The database bulkhead: it limits how many threads of a process may use SQL at a time.

A server that accepts a connection and never answers holds a thread for ``connect_timeout``, and a
thread that waits for it is missing at the token door and for reads, which need no SQL. So at most
``most`` threads are inside at a time; others wait a moment, and are then answered as if the
database were away.

- A thread inside may wait until the server answers or TCP finds its machine gone: a query on an
  open connection has no timeout of ours.
- No thread waits behind a call that has taken longer than ``SLOW``, as that may hang.
- After a call that failed slowly no thread is let in for ``PAUSE`` seconds, then one at a time
  until one succeeds. A failure that comes at once (connection refused) holds no thread up, and
  changes nothing.
"""

import functools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import Error, OperationalError

PATIENCE = 0.25  # seconds that a thread waits to be let in
SLOW = 0.5  # seconds; a call of ours takes some milliseconds
PAUSE = 2.0  # seconds

logger = logging.getLogger(__name__)


class BulkheadFullError(OperationalError):
    """The database wasn't asked: too many wait for it, or it has just failed slowly."""


class DatabaseBulkhead:
    """A bulkhead that lets ``most`` threads in at a time; no thread may enter ``inside`` twice."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._inside: list[float] = []  # when each thread came in (monotonic), the earliest first
        self._closed_until: float | None = None  # None: the database answers

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let the caller's thread in for the block; raises BulkheadFullError."""
        since = self._enter()
        failed = False
        try:
            yield
        except Error:
            failed = True
            raise
        finally:
            self._leave(since, failed=failed)

    def _enter(self) -> float:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._hangs(), timeout=PATIENCE)
            if not self._has_room():
                raise BulkheadFullError("not asked: it answers slowly or not at all")
            since = time.monotonic()
            self._inside.append(since)
            return since

    def _has_room(self) -> bool:
        if self._closed_until is not None:
            return not self._inside and time.monotonic() >= self._closed_until
        return len(self._inside) < self._most

    def _hangs(self) -> bool:
        if self._closed_until is not None:
            return True
        return bool(self._inside) and time.monotonic() - self._inside[0] > SLOW

    def _leave(self, since: float, *, failed: bool) -> None:
        now = time.monotonic()
        with self._changed:
            self._inside.remove(since)
            was_closed = self._closed_until is not None
            if not failed:
                self._closed_until = None
            elif now - since > SLOW:
                self._closed_until = now + PAUSE
            is_closed = self._closed_until is not None
            self._changed.notify_all()
        if is_closed and not was_closed:
            logger.error(
                "The database failed after %.1f s; it is asked by one thread at a time, every %g s",
                now - since,
                PAUSE,
            )
        elif was_closed and not is_closed:
            logger.info("The database answers again")


@functools.cache
def bulkhead() -> DatabaseBulkhead:
    """Return the bulkhead of this process."""
    return DatabaseBulkhead(most=settings.DATABASE_THREADS)
