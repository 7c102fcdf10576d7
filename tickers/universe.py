"""The universe: the symbols a node knows, each with its exchange and sector."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("universe.csv")

# Shares have three letters or digits; indices, funds, futures and warrants have more.
_SYMBOL = re.compile(r"[A-Z0-9]{1,16}")


class Exchange(StrEnum):
    HOSE = "HOSE"
    HNX = "HNX"
    UPCOM = "UPCOM"
    INDEX = "INDEX"


class UniverseError(ValueError):
    """The universe's file, or the choice of symbols, is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Listing:
    symbol: str
    exchange: Exchange
    sector: str


def looks_like_symbol(text: str) -> bool:
    return _SYMBOL.fullmatch(text) is not None


class Universe:
    """The listings by symbol, in the file's order."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        self._listings: Mapping[str, Listing] = {entry.symbol: entry for entry in listings}

    @classmethod
    def read(cls, path: Path = DEFAULT_FILE) -> "Universe":
        """Read a CSV file with the columns symbol, exchange and sector."""
        try:
            # Spreadsheets write a byte order mark before the first column's name.
            with path.open(newline="", encoding="utf-8-sig") as file:
                return cls(list(_listings(csv.DictReader(file))))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UniverseError(f"can't be read: {error}") from error

    def only(self, symbols: Iterable[str]) -> "Universe":
        wanted = {symbol.upper() for symbol in symbols}
        if unknown := sorted(wanted - set(self._listings)):
            raise UniverseError(f"has symbols that the universe doesn't list: {', '.join(unknown)}")
        return Universe(entry for entry in self if entry.symbol in wanted)

    def __iter__(self) -> Iterator[Listing]:
        return iter(self._listings.values())

    def __len__(self) -> int:
        return len(self._listings)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._listings

    @property
    def symbols(self) -> list[str]:
        return list(self._listings)

    def exchange(self, symbol: str) -> Exchange | None:
        """Return the symbol's exchange; None for a symbol from gossip that isn't listed here."""
        entry = self._listings.get(symbol)
        return entry.exchange if entry else None

    def sectors(self) -> dict[str, list[str]]:
        """Return {sector: [symbol, ...]}, both sorted."""
        groups: dict[str, list[str]] = {}
        for entry in self:
            groups.setdefault(entry.sector, []).append(entry.symbol)
        return {sector: sorted(groups[sector]) for sector in sorted(groups)}


def _listings(rows: "csv.DictReader[str]") -> Iterator[Listing]:
    if not {"symbol", "exchange", "sector"} <= set(rows.fieldnames or ()):
        raise UniverseError("needs the columns symbol, exchange and sector")
    lines: dict[str, int] = {}
    for row in rows:
        symbol = (row["symbol"] or "").strip().upper()
        if not looks_like_symbol(symbol):
            raise UniverseError(f"line {rows.line_num}: {symbol!r} doesn't look like a symbol")
        if symbol in lines:
            raise UniverseError(f"line {rows.line_num}: {symbol} is on line {lines[symbol]} too")
        lines[symbol] = rows.line_num
        try:
            exchange = Exchange((row["exchange"] or "").strip().upper())
        except ValueError:
            raise UniverseError(
                f"line {rows.line_num}: the exchange must be one of {', '.join(Exchange)}"
            ) from None
        yield Listing(symbol, exchange, (row["sector"] or "").strip() or "OTHERS")
    if not lines:
        raise UniverseError("lists no symbol")
