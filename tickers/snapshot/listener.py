"""Hears of changes as they are logged, so that a reader needn't wait until it would ask.

A process asks the store where it stands at most every POSITION_LIFETIME. Listening makes that
moments after a change; without it (the store is away, a moment between two waits) everything stays
as right, and is late by that lifetime at most.
"""

import threading
import time
import weakref

import redis

from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.store import Store

WAIT = 1.0  # seconds for a change, and between looks at whether anybody still listens
# Seconds between two changes that are told: a burst of gossip has the process refresh 50 times a
# second, not as often as it writes.
PAUSE = 0.02
AWAY_PAUSE = 1.0  # seconds, when the store doesn't answer


class Listener(threading.Thread):
    """Tells ``keeper`` of each change, for as long as there is a keeper."""

    def __init__(self, store: Store, keeper: SnapshotRefresher) -> None:
        super().__init__(name="listener", daemon=True)
        self._store = store
        self._keeper = weakref.ref(keeper)

    def run(self) -> None:
        while self._keeper():
            try:
                changed = self._store.wait_for_change(WAIT)
            except redis.RedisError:
                time.sleep(AWAY_PAUSE)  # who reads meanwhile says that the store is away
                continue
            if changed:
                self._tell()
                time.sleep(PAUSE)
                self._tell()  # of what came in the pause

    def _tell(self) -> None:
        if keeper := self._keeper():
            keeper.store_changed()
