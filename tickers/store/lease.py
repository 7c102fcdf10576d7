"""The lease is the leader's time-limited right to fetch, deliver and write as CORE.

Each acquisition draws a new fence, and the store refuses what is written under another. A thread
renews the lease while the process lives, so a cycle may take longer than the lease.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tickers.store.store import Store, StoreError

logger = logging.getLogger(__name__)

LIFETIME = 5.0  # seconds: a killed leader is replaced within this and a standby's next try
RENEWAL = 1.5  # seconds
TRY_AGAIN = 1.0  # seconds between a standby's tries


class Lease:
    """A worker's lease, a context manager; ``fence`` is None while another worker leads.

    ``lifetime`` is in seconds.
    """

    def __init__(self, store: Store, *, lifetime: float = LIFETIME) -> None:
        self._store = store
        self._lifetime = lifetime
        self._fence: str | None = None
        self._valid_until = 0.0
        self._lock = threading.Lock()  # a renewal's answer may come after its lease has ended
        self._closing = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._renewing.join(timeout=1)
        fence, self._fence = self._fence, None
        if fence:
            try:
                self._store.release_lease(fence)
            except redis.RedisError as error:
                logger.warning("the lease runs out by itself: it can't be released (%s)", error)

    @property
    def fence(self) -> str | None:
        """The fence that this worker leads under, as far as it knows; the store decides."""
        return self._fence if time.monotonic() < self._valid_until else None

    def try_acquire(self) -> str | None:
        if self.fence is None:
            asked_at = time.monotonic()
            fence = self._store.acquire_lease(self._lifetime)
            with self._lock:
                self._fence, self._valid_until = fence, asked_at + self._lifetime
        return self.fence

    def _renew(self) -> None:
        while not self._closing.wait(RENEWAL):
            fence = self.fence
            if fence is None:
                continue
            asked_at = time.monotonic()
            try:
                renewed = self._store.renew_lease(fence, self._lifetime)
            except redis.RedisError as error:
                logger.warning("the lease can't be renewed (%s)", error)
                continue
            with self._lock:
                if fence != self._fence:
                    continue
                if renewed:
                    self._valid_until = asked_at + self._lifetime
                else:
                    logger.warning("the lease is lost: another worker leads, or the store is new")
                    self._fence = None


@contextmanager
def operators_fence(store: Store) -> Iterator[str]:
    """Yield a fence for an operator's writes: the leader's, or one of a lease held meanwhile.

    The store's steps are atomic, so the leader and an operator may write under one lease. Raises
    StoreError when the lease changes hands just now.
    """
    lent = store.leaders_fence()
    if lent is not None:
        yield lent
        return
    with Lease(store) as lease:
        fence = lease.try_acquire() or store.leaders_fence()
        if fence is None:
            raise StoreError("the lease is just changing hands: try again")
        yield fence
