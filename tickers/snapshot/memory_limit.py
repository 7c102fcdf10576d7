"""The memory limit decides which histories a snapshot holds, and whether it keeps whole bodies.

It limits the snapshot's own bytes: bars, and the kept bodies, plain and compressed. The
interpreter, answers that are being sent, and a snapshot that was just replaced come on top.
"""

from dataclasses import dataclass

from tickers.snapshot.series import Series

# The most bytes that a symbol takes without its history: its newest bar, its overlay, its
# revisions, its share of the kept bodies of the last bars, and the objects around them.
SYMBOL_SIZE = 1_536
# A history is held once as itself and once in the kept body of the whole market; each coding adds
# some 0.3 (a seventh for each of the two).
BODIES = 3


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A process's use: bytes, and the number of symbols with and without their history."""

    used: int
    limit: int
    held: int
    not_held: int


@dataclass
class MemoryLimit:
    """The limit (bytes) of a snapshot that is being made.

    Histories are held while they fit beside the newest bars. The bodies of the whole market are
    kept if all histories and those bodies fit.
    """

    limit: int
    symbols: int  # whose newest bars are held
    not_held: int = 0
    taken: int = 0  # by histories

    def hold(self, series: Series, instead_of: Series | None = None) -> Series:
        """Return the series with its history if that fits, without it if not.

        ``instead_of`` is the symbol's series that it replaces.
        """
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
        """Release the memory of a series that isn't held any more."""
        if series.history is None:
            self.not_held -= 1
        else:
            self.taken -= series.history.size

    def fits(self, more: int = 0) -> bool:
        return self.symbols * SYMBOL_SIZE + self.taken + more <= self.limit

    @property
    def for_bodies(self) -> bool:
        return not self.not_held and self.fits((BODIES - 1) * self.taken)
