"""The rows of a symbol's last answer, with the bars that they made.

From cycle to cycle most rows of an answer come again as they were. Such a row is compared, and not
read again; its bar is the same object, which has been encoded already.
"""

from typing import Any, NamedTuple

from tickers.bar import Bar

MOST_ROWS = 16  # a symbol; whole histories aren't kept


class ReadRow(NamedTuple):
    """A row (time, open, high, low, close, volume, as they came) that made ``bar``."""

    values: tuple[Any, ...]
    start: int  # of the bar, in epoch seconds
    bar: Bar


class Rows:
    """The rows of daily bars that one upstream answered last, by symbol; for one thread."""

    def __init__(self) -> None:
        self._by_symbol: dict[str, list[ReadRow | None]] = {}

    def of(self, symbol: str) -> list[ReadRow | None]:
        """Return the symbol's rows in their order, None for each that made no bar."""
        return self._by_symbol.get(symbol, [])

    def note(self, symbol: str, rows: list[ReadRow | None]) -> None:
        if len(rows) <= MOST_ROWS:
            self._by_symbol[symbol] = rows
        else:
            self._by_symbol.pop(symbol, None)


def can_be_compared(body: bytes) -> bool:
    """Return whether equal values of two answers mean the same.

    They do unless one is a boolean: Python's True equals 1, which is a volume, and true isn't.
    """
    return b"true" not in body and b"false" not in body
