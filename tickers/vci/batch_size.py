"""How many symbols a request names, learned from what the upstream answered.

The chart API doesn't say how many symbols it takes. A full batch that came whole proves its size,
and the next one is twice as large. A batch that was refused, or that came back short of symbols
which then do come in a smaller one, was too large: the size is halved, and what works is kept for
an hour. Symbols that the upstream doesn't know, or that make it refuse a request, teach
nothing about the size: they are remembered. Nothing here does I/O.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

RELEARN_AFTER = 3_600.0  # seconds: then a size that failed may be tried again
FIRST_ABSENCE = 300.0  # seconds, doubled each time that the symbol still doesn't come
LONGEST_ABSENCE = 86_400.0


def split(symbols: Sequence[str], size: int) -> list[list[str]]:
    """In order, ``size`` symbols each; the last part may be smaller."""
    return [list(symbols[at : at + size]) for at in range(0, len(symbols), size)]


class Remembered:
    """Symbols that something is known of for a while, longer each time that it proves true."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._period: dict[str, float] = {}

    def note(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            period = self._period.get(symbol, FIRST_ABSENCE / 2) * 2
            self._period[symbol] = min(period, LONGEST_ABSENCE)
            self._until[symbol] = self._clock() + self._period[symbol]

    def forget(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._until.pop(symbol, None)
            self._period.pop(symbol, None)

    def remembers(self, symbols: Iterable[str]) -> bool:
        """Whether all symbols have been noted, be it a while ago, and never forgotten."""
        return all(symbol in self._until for symbol in symbols)

    def current(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(symbol for symbol, until in self._until.items() if now < until)


class BatchSize:
    """The batch size in symbols a request; ``clock`` gives monotonic seconds.

    It begins at ``size`` and grows to ``largest`` (by default not at all).
    ``absent`` are symbols that the upstream leaves out, asked alone or with few others: without
    them an answer isn't short. ``refused`` are symbols that it refuses, asked alone: they aren't
    asked for while they are remembered.
    """

    def __init__(
        self, *, size: int, largest: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if size < 1:
            raise ValueError("the batch size must be 1 or more")
        self.absent = Remembered(clock)
        self.refused = Remembered(clock)
        self.configured = self._size = size
        self._largest = max(size, largest)
        self._clock = clock
        self._relearn_at = 0.0
        self._proven = 0
        self._excused: set[str] = set()
        self._brought = self._brought_before = False
        self.given_up: frozenset[str] = frozenset()  # what the last fetch didn't reach

    def begin_fetch(self) -> None:
        self.given_up = frozenset()
        self._brought, self._brought_before = False, self._brought

    @property
    def brings(self) -> bool:
        """Whether the upstream has brought any symbol in this fetch or the one before."""
        return self._brought or self._brought_before

    @property
    def size(self) -> int:
        if self._size < self.configured and not self._holds:
            self._size = self.configured
        return self._size

    @property
    def _holds(self) -> bool:
        """Whether a size has failed so lately that no larger one is tried."""
        return self._clock() < self._relearn_at

    def note(self) -> dict[str, int]:
        """What was learned, for ``recall`` after a restart."""
        return {"size": self.size, "holds": int(self._holds)}

    def recall(self, note: Mapping[str, int]) -> None:
        """Go on from a note. A size that had failed is left alone for another whole hour."""
        size = note.get("size", 0)
        if not 1 <= size <= self._largest:
            return
        self._size = size
        if note.get("holds"):
            self._relearn_at = self._clock() + RELEARN_AFTER

    def answered(self, symbols: Iterable[str]) -> None:
        """The upstream knows these symbols."""
        known = list(symbols)
        self._brought = self._brought or bool(known)
        self.absent.forget(known)
        self.refused.forget(known)

    def worked(self, batch: Sequence[str], *, came: int) -> None:
        """A request for the batch brought all that can be expected: ``came`` symbols with bars."""
        self._proven = max(self._proven, len(batch))
        self._excused.difference_update(batch)
        full = len(batch) >= self.size and 2 * came > len(batch)
        if full and self.size < self._largest and not self._holds:
            self._size = min(2 * self.size, self._largest)
            logger.info(
                "%d symbols came in one answer; asking for %d a request", len(batch), self._size
            )

    def excuse(self, batch: Sequence[str]) -> bool:
        """Whether a batch's failure is put down to chance, because its size has worked before.

        Once only, until the batch works again: the second time its size is in question.
        """
        if len(batch) > self._proven or not self._excused.isdisjoint(batch):
            return False
        self._excused.update(batch)
        return True

    def failed(self, batch: Sequence[str]) -> None:
        """A request failed as it does when an answer is too long, or for reasons unknown.

        That questions only what the size has grown by, never the size that is configured.
        """
        if len(batch) > self.configured and not self.excuse(batch):
            self._shrink(max(self.configured, self._below(len(batch))), failed=len(batch))

    def too_many(self, count: int) -> None:
        """A request for ``count`` symbols failed where smaller ones worked."""
        self._shrink(self._below(count), failed=count)

    def _below(self, failed: int) -> int:
        """Half of what failed, or what has worked before, if that is more."""
        half = max(1, (failed + 1) // 2)
        return max(half, self._proven) if self._proven < failed else half

    def _shrink(self, size: int, *, failed: int) -> None:
        if size < self.size:
            self._size = size
            self._proven = min(self._proven, size)
            self._relearn_at = self._clock() + RELEARN_AFTER
            logger.warning(
                "the upstream doesn't take %d symbols a request; asking for %d", failed, size
            )
