"""The store's records are values read from the texts that its scripts write and return."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tickers.bar import DAY_SECONDS, epoch_of
from tickers.verdict import Authority

MAX_SERIES = 20_000  # bars of one symbol: 80 years of trading days

# An encoded bar has its symbol at this place, and its day after this name.
_SYMBOL_AT, _DAY_NAME = len(b'{"symbol":"'), b'"time":"'


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position names a state of the market; its ``str()`` is used in ETags and ``since``."""

    epoch: str
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.revision}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position of ``EPOCH-REVISION`` or an ETag with it; raise ValueError."""
        bare = text.strip().removeprefix("W/").strip('"')
        epoch, _, revision = bare.partition("-")
        if not (epoch.isalnum() and revision.isascii() and revision.isdigit()):
            raise ValueError("not a position")
        return cls(epoch, int(revision))


@dataclass(frozen=True, slots=True)
class State:
    """The state of the store at one moment."""

    position: Position
    age: float | None  # seconds since the last trusted update; None: never
    ready_epoch: str
    overlays: int
    held: int  # symbols of which public bars are held
    trading_days: frozenset[dt.date] = frozenset()  # days that the market has shown to be such

    @classmethod
    def parse(cls, told: Sequence[Any]) -> "State":
        epoch, revision, age, ready, overlays, held, trading_days = told
        return cls(
            position=Position(epoch.decode(), revision),
            age=None if age < 0 else age / 1000,
            ready_epoch=ready.decode(),
            overlays=overlays,
            held=held,
            trading_days=frozenset(dt.date.fromisoformat(day.decode()) for day in trading_days),
        )


@dataclass(frozen=True, slots=True)
class Newest:
    """A symbol's newest trusted bar.

    ``day`` is in epoch seconds, ``anchor`` is its close as the store holds it, and ``revision`` is
    that at which it changed last (0: unknown).
    """

    day: int
    authority: Authority
    volume: int
    anchor: str
    stored_at: int  # Redis TIME, milliseconds
    json: bytes
    revision: int = 0

    @classmethod
    def parse(cls, text: bytes) -> "Newest":
        day, authority, volume, _, _, close, stored_at, revision, bar = text.split(b" ", 8)
        return cls(
            int(day),
            Authority(authority.decode()),
            int(volume),
            close.decode(),
            int(stored_at),
            bar,
            int(revision),
        )


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay of a day (epoch seconds).

    ``actors`` are its sender and, if it needed one, the sender of the held bar that confirmed it.
    """

    day: int
    actors: tuple[str, ...]
    volume: int
    json: bytes

    @classmethod
    def parse(cls, text: bytes) -> "Overlay":
        day, _, actors, volume, bar = text.split(b" ", 4)
        return cls(int(day), tuple(actors.decode().split(",")), int(volume), bar)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts by which a public bar of a symbol is judged, read in one step.

    ``before`` is the encoded trusted bar before the newest; ``loaded_from`` the history start
    (epoch seconds) that the symbol was fully loaded from. Each is None where there is none.
    ``is_suspect``: a trusted source says what can't be right of the symbol. ``moved_on``: the day
    (epoch seconds) on which it moved to another exchange; 0: never.
    """

    newest: Newest | None = None
    overlay: Overlay | None = None
    before: bytes | None = None
    loaded_from: int | None = None
    is_suspect: bool = False
    moved_on: int = 0

    @classmethod
    def parse(cls, told: Sequence[Any]) -> "Facts":
        newest, overlay, before, loaded_from, is_suspect, listed = told
        return cls(
            Newest.parse(newest) if newest else None,
            Overlay.parse(overlay) if overlay else None,
            before or None,
            int(loaded_from) if loaded_from else None,
            bool(is_suspect),
            int(listed.split()[1]) if listed else 0,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the change log: ``bar`` is None unless ``what`` is an authority."""

    revision: int
    what: str  # an authority, "withdrawn", "replaced" or "removed"
    symbol: str
    bar: bytes | None

    @classmethod
    def parse(cls, entry_id: bytes, fields: dict[bytes, bytes]) -> "Change":
        [(what, said)] = fields.items()
        revision = int(entry_id.partition(b"-")[0])
        if not said.startswith(b"{"):
            return cls(revision, what.decode(), said.decode(), None)
        symbol = said[_SYMBOL_AT : said.index(b'"', _SYMBOL_AT)]
        return cls(revision, what.decode(), symbol.decode(), said)


def day_in(bar: bytes) -> int:
    """Return the day of an encoded bar, in epoch seconds."""
    at = bar.index(_DAY_NAME) + len(_DAY_NAME)
    return _epoch(bar[at : at + 10])


def date_of(day: int) -> dt.date:
    """Return the date of a day in epoch seconds."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=day // DAY_SECONDS)


@lru_cache(maxsize=MAX_SERIES)
def _epoch(date: bytes) -> int:
    """Return a date's epoch seconds, cached, as all series have the same days."""
    return epoch_of(dt.date.fromisoformat(date.decode()))
