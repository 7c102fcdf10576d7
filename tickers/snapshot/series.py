"""A series as a snapshot keeps it: the encoded bars of closed days as one text, the newest apart.

The market is some hundred thousand bars of 120 bytes. An object for each would take half as much
again, and their joined text is needed anyway, so a bar is an offset in it.
"""

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tickers.bar import Bar, parse
from tickers.snapshot.coding import Coding

DAY = 86_400  # seconds

_CLOSE = b'"close":'

Row = tuple[int, bytes]  # a day (epoch seconds), and its encoded bar


class History:
    """A symbol's bars but the newest; snapshots share it until a day closes or it is replaced.

    ``joined`` is the bars with commas between. ``start`` and ``end`` of the methods are days in
    epoch seconds, inclusive; None: from the first, to the last.
    """

    __slots__ = ("_days", "_packed", "_starts", "joined")

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        """Make a history of ``rows``, which are sorted by day."""
        self.joined = b",".join([bar for _, bar in rows])
        self._days = array("i", [day // DAY for day, _ in rows])  # 4 bytes: the years 1 to 9999
        self._starts = array("I", [0])  # of each bar in ``joined``, and of one that came after
        at = 0
        for _, bar in rows:
            at += len(bar) + 1
            self._starts.append(at)
        self._packed: dict[str, bytes] | None = None

    def __len__(self) -> int:
        return len(self._days)

    @property
    def size(self) -> int:
        """The bytes that it takes without its compressed forms."""
        return len(self.joined) + 4 * (len(self._days) + len(self._starts))

    @property
    def packed_size(self) -> int:
        return sum(map(len, self._packed.values())) if self._packed else 0

    def rows(self) -> list[Row]:
        return [(day * DAY, self._bars(at, at + 1)) for at, day in enumerate(self._days)]

    def packed(self, coding: Coding) -> bytes:
        """Return ``joined`` as a piece of that coding, which is made once."""
        if self._packed is None:
            self._packed = {}
        piece = self._packed.get(coding.NAME)
        if piece is None:
            piece = self._packed[coding.NAME] = coding.piece(self.joined)
        return piece

    def last(self, count: int) -> list[bytes]:
        first = max(0, len(self) - count)
        return [self._bars(at, at + 1) for at in range(first, len(self))]

    def cut(self, start: int | None, end: int | None, limit: int | None) -> bytes:
        """Return the bars of those days, the last ``limit`` of them, with commas between."""
        low, high = self._places(start, end)
        if limit is not None:
            low = max(low, high - limit)
        return self._bars(low, high)

    def days_from(self, start: int) -> int:
        """How many bars it has of that day (epoch seconds) and later ones."""
        return len(self._days) - self._places(start, None)[0]

    def with_bar(self, day: int, bar: bytes) -> "History":
        if not self._days or day // DAY > self._days[-1]:
            return self._spliced(len(self), len(self), day, bar)
        at = bisect_left(self._days, day // DAY)
        return self._spliced(at, at + (self._days[at] == day // DAY), day, bar)

    def _spliced(self, low: int, high: int, day: int, bar: bytes) -> "History":
        """Return a history with this bar in the place of those from ``low`` to ``high``."""
        around = (self._bars(0, low), bar, self._bars(high, len(self)))
        made = History()
        made.joined = b",".join([part for part in around if part])
        made._days = self._days[:low] + array("i", [day // DAY]) + self._days[high:]
        moved = self._starts[low] + len(bar) + 1 - self._starts[high]
        after = array("I", [start + moved for start in self._starts[high:]])
        made._starts = self._starts[: low + 1] + after
        return made

    def _places(self, start: int | None, end: int | None) -> tuple[int, int]:
        low = 0 if start is None else bisect_left(self._days, -(-start // DAY))
        return low, len(self) if end is None else bisect_right(self._days, end // DAY)

    def _bars(self, low: int, high: int) -> bytes:
        return self.joined[self._starts[low] : self._starts[high] - 1] if low < high else b""


@dataclass(frozen=True, slots=True)
class Series:
    """A symbol's trusted bars: ``history``, then the bar ``newest`` of ``day`` (epoch seconds).

    ``history`` is None when it isn't held, and has to be read from the store.
    """

    history: History | None
    day: int
    newest: bytes

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Series":
        """Make a series of at least one row, sorted by day."""
        day, newest = rows[-1]
        return cls(History(rows[:-1]), day, newest)

    def with_bar(self, day: int, bar: bytes) -> "Series":
        if day == self.day:
            return Series(self.history, day, bar)
        past, newest = sorted([(self.day, self.newest), (day, bar)])
        if self.history is None:
            return Series(None, *newest)
        return Series(self.history.with_bar(*past), *newest)

    def without_history(self) -> "Series":
        return Series(None, self.day, self.newest)


def volume_of(bar: bytes) -> int:
    return int(bar[bar.rindex(b":") + 1 : -1])


def close_of(bar: bytes) -> float:
    at = bar.rindex(_CLOSE) + len(_CLOSE)
    return float(bar[at : bar.index(b",", at)])


def bar_of(encoded: bytes) -> Bar:
    """Return the bar of an encoded form that this node made."""
    return parse(json.loads(encoded))
