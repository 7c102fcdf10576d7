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

# The upstream spells some indices in mixed case: HNXIndex, HNXUpcomIndex.
_SPELLING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


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
    spelling: str = ""  # the upstream's name of it, where that isn't the symbol

    @property
    def upstream(self) -> str:
        """The name under which the upstream is asked for it."""
        return self.spelling or self.symbol


def looks_like_symbol(text: str) -> bool:
    return _SYMBOL.fullmatch(text) is not None


class Universe:
    """The listings by symbol, in the file's order."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        self._listings: Mapping[str, Listing] = {entry.symbol: entry for entry in listings}

    @classmethod
    def read(cls, path: Path = DEFAULT_FILE) -> "Universe":
        """Read a CSV file with the columns symbol, exchange and sector, and maybe upstream (the
        upstream's spelling; empty: the symbol's own)."""
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
        return isinstance(symbol, str) and symbol.upper() in self._listings

    @property
    def symbols(self) -> list[str]:
        return list(self._listings)

    def exchange(self, symbol: str) -> Exchange | None:
        """The symbol's exchange; None for one that came by gossip and isn't listed here."""
        entry = self._listings.get(symbol.upper())
        return entry.exchange if entry else None

    @property
    def spellings(self) -> dict[str, str]:
        """symbol → the upstream's name of it, of those whose names differ."""
        return {entry.symbol: entry.upstream for entry in self if entry.upstream != entry.symbol}

    @property
    def indices(self) -> frozenset[str]:
        return frozenset(entry.symbol for entry in self if entry.exchange is Exchange.INDEX)

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
    spelt: dict[str, int] = {}
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
        sector = (row["sector"] or "").strip() or "OTHERS"
        entry = Listing(symbol, exchange, sector, _spelling(row, rows.line_num))
        # Answers are told apart by these names, whatever their case.
        line = spelt.setdefault(entry.upstream.upper(), rows.line_num)
        if line != rows.line_num:
            raise UniverseError(
                f"line {rows.line_num}: the upstream's name {entry.upstream} is on line {line} too"
            )
        yield entry
    if not lines:
        raise UniverseError("lists no symbol")


def _spelling(row: Mapping[str, str | None], line: int) -> str:
    spelling = (row.get("upstream") or "").strip()
    if spelling and not _SPELLING.fullmatch(spelling):
        raise UniverseError(f"line {line}: {spelling!r} doesn't look like an upstream's name")
    return spelling
