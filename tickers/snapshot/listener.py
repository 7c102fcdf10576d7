"""The listener waits for changes in the change log, so that a web process refreshes at once.

A process asks the store for its position once in POSITION_LIFETIME at most. The listener makes it
ask right after a change; without it (the store is away, or a change falls between two waits)
answers are just as right, and late by that lifetime at most.
"""

import threading
import time
import weakref

import redis

from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.store import Store

WAIT = 1.0  # seconds for a change, and between checks that the refresher still exists
# Seconds between two notifications: in a burst of gossip the process refreshes 50 times a second,
# not with every write.
PAUSE = 0.02
AWAY_PAUSE = 1.0  # seconds, when the store doesn't answer


class Listener(threading.Thread):
    """A thread that notifies ``refresher`` of each change, for as long as that exists."""

    def __init__(self, store: Store, refresher: SnapshotRefresher) -> None:
        super().__init__(name="listener", daemon=True)
        self._store = store
        self._refresher = weakref.ref(refresher)

    def run(self) -> None:
        while self._refresher():
            try:
                changed = self._store.wait_for_change(WAIT)
            except redis.RedisError:
                time.sleep(AWAY_PAUSE)  # reads report that the store is away
                continue
            if changed:
                self._notify()
                time.sleep(PAUSE)
                self._notify()  # of the changes in the pause

    def _notify(self) -> None:
        if refresher := self._refresher():
            refresher.store_changed()
