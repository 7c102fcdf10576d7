"""How a snapshot keeps to a limit of memory: what of the market it holds.

The limit is of the snapshot's own bytes: bars, and the bodies kept of them, plain and compressed.
The interpreter, answers on their way, and a snapshot that the next one has just replaced come on
top.
"""

from dataclasses import dataclass

from tickers.snapshot.series import Series

# Bytes that a symbol takes whatever the limit, at most: its newest bar, its overlay, its revisions,
# its share of the kept bodies of the last bars, and the objects around them.
SYMBOL_SIZE = 1_536
# A history is held once as itself and once in the kept body of the whole market; each compressed
# form, of both, adds some 0.3 (two times a seventh).
BODIES = 3


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a process holds of the market: bytes, and symbols with and without their history."""

    used: int
    limit: int
    held: int
    not_held: int


@dataclass
class MemoryLimit:
    """How a snapshot in the making keeps to its limit (bytes).

    Histories are held while they fit beside the newest bars; the bodies of the whole market are
    kept where all of them, and those bodies too, fit.
    """

    limit: int
    symbols: int  # whose newest bars are held
    not_held: int = 0
    taken: int = 0  # by histories

    def hold(self, series: Series, instead_of: Series | None = None) -> Series:
        """The series with its history if that fits, in the place of the symbol's one before."""
        if instead_of is not None:
            self.leave(instead_of)
        if series.history is None or not self.fits(series.history.size):
            self.not_held += 1
            return series.without_history()
        self.taken += series.history.size
        return series

    def drop(self, series: Series) -> Series:
        self.leave(series)
        self.not_held += 1
        return series.without_history()

    def leave(self, series: Series) -> None:
        """The series is not held any more."""
        if series.history is None:
            self.not_held -= 1
        else:
            self.taken -= series.history.size

    def fits(self, more: int = 0) -> bool:
        return self.symbols * SYMBOL_SIZE + self.taken + more <= self.limit

    @property
    def for_bodies(self) -> bool:
        return not self.not_held and self.fits((BODIES - 1) * self.taken)
