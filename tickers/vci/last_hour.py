"""Counts of the last hour, to the minute: what happened days ago says nothing about now."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

MINUTE = 60.0  # seconds
MINUTES = 60
MOST_NAMES = 50  # that are told apart in a minute; further ones are OTHER
OTHER = "other"


class LastHour:
    """How often each of some names was counted in the last hour; safe for threads.

    ``clock`` gives monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: deque[tuple[int, Counter[str]]] = deque()  # the latest is last

    def add(self, name: str, times: int = 1) -> None:
        with self._lock:
            counts = self._now()
            counts[name if name in counts or len(counts) < MOST_NAMES else OTHER] += times

    def update(self, counts: Mapping[str, int]) -> None:
        for name, times in counts.items():
            self.add(name, times)

    def counts(self) -> Counter[str]:
        with self._lock:
            self._now()
            return sum((counts for _, counts in self._minutes), Counter())

    def _now(self) -> Counter[str]:
        """Return this minute's counts; forget those of an hour ago."""
        minute = int(self._clock() // MINUTE)
        while self._minutes and self._minutes[0][0] <= minute - MINUTES:
            self._minutes.popleft()
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        return self._minutes[-1][1]
