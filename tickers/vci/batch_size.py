"""The batch size is how many symbols a request names, learned from the upstream's answers.

The chart API doesn't say how many symbols it takes. A full batch that came whole proves its size,
and the next one is twice as large. A batch was too large if it was refused, or if it came back
without symbols which then do come in a smaller one: the size is halved, and no larger one is tried
for an hour. Symbols that the upstream doesn't know, or that make it refuse a request, say nothing
about the size, and are remembered. Nothing here does I/O.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

RELEARN_AFTER = 3_600.0  # seconds after which a size that failed may be tried again
FIRST_ABSENCE = 300.0  # seconds, doubled each time that the symbol still doesn't come
LONGEST_ABSENCE = 86_400.0


def split(symbols: Sequence[str], size: int) -> list[list[str]]:
    """Return the symbols in parts of ``size``, in order; the last part may be smaller."""
    return [list(symbols[at : at + size]) for at in range(0, len(symbols), size)]


class Remembered:
    """Symbols that are absent or refused, remembered longer each time that it proves true."""

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
        """Return whether all symbols are noted, even if their time is over."""
        return all(symbol in self._until for symbol in symbols)

    def current(self) -> frozenset[str]:
        now = self._clock()
        return frozenset(symbol for symbol, until in self._until.items() if now < until)


class BatchSize:
    """The batch size in symbols a request; ``clock`` gives monotonic seconds.

    It begins at ``size`` and grows to ``largest`` (by default not at all). ``absent`` are symbols
    that the upstream leaves out when it is asked for them alone or with few others: an answer
    without them isn't short. ``refused`` are symbols that it refuses when it is asked for them
    alone: they aren't asked for while they are remembered.
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
        self.given_up: frozenset[str] = frozenset()  # symbols that the last fetch didn't reach

    def begin_fetch(self) -> None:
        self.given_up = frozenset()
        self._brought, self._brought_before = False, self._brought

    @property
    def brings(self) -> bool:
        """Return whether the upstream brought any symbol in this fetch or the one before."""
        return self._brought or self._brought_before

    @property
    def size(self) -> int:
        if self._size < self.configured and not self._holds:
            self._size = self.configured
        return self._size

    @property
    def _holds(self) -> bool:
        """Return whether a size failed so lately that no larger one is tried."""
        return self._clock() < self._relearn_at

    def note(self) -> dict[str, int]:
        """Return what was learned, for ``recall`` after a restart."""
        return {"size": self.size, "holds": int(self._holds)}

    def recall(self, note: Mapping[str, int]) -> None:
        """Take over a note. If a size had failed, no larger one is tried for another hour."""
        size = note.get("size", 0)
        if not 1 <= size <= self._largest:
            return
        self._size = size
        if note.get("holds"):
            self._relearn_at = self._clock() + RELEARN_AFTER

    def answered(self, symbols: Iterable[str]) -> None:
        """Note that the upstream knows these symbols."""
        known = list(symbols)
        self._brought = self._brought or bool(known)
        self.absent.forget(known)
        self.refused.forget(known)

    def worked(self, batch: Sequence[str], *, came: int) -> None:
        """Note that a request for the batch brought all that it could: ``came`` symbols."""
        self._proven = max(self._proven, len(batch))
        self._excused.difference_update(batch)
        full = len(batch) >= self.size and 2 * came > len(batch)
        if full and self.size < self._largest and not self._holds:
            self._size = min(2 * self.size, self._largest)
            logger.info(
                "%d symbols came in one answer; asking for %d a request", len(batch), self._size
            )

    def excuse(self, batch: Sequence[str]) -> bool:
        """Return whether a batch's failure may be chance, because its size has worked before.

        That holds once only until the batch works again: a second failure questions its size.
        """
        if len(batch) > self._proven or not self._excused.isdisjoint(batch):
            return False
        self._excused.update(batch)
        return True

    def failed(self, batch: Sequence[str]) -> None:
        """Note that a request failed as if its answer were too long, or for an unknown reason.

        The size never falls below the configured one for that.
        """
        if len(batch) > self.configured and not self.excuse(batch):
            self._shrink(max(self.configured, self._below(len(batch))), failed=len(batch))

    def too_many(self, count: int) -> None:
        """Note that a request for ``count`` symbols failed where smaller ones worked."""
        self._shrink(self._below(count), failed=count)

    def _below(self, failed: int) -> int:
        """Return half of the size that failed, or the size that has worked if that is more."""
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
