"""A web process's own encoded copy of the market at one revision.

A snapshot never changes; the keeper makes the next one from it and the change log, at the cost of
what changed. Bodies are joined from encoded bars, never encoded anew.
"""

import datetime as dt
import json
import logging
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import redis

from tickers import gzip_pieces
from tickers.bar import Bar, epoch_of, parse
from tickers.store import Change, Position, State, Store

logger = logging.getLogger(__name__)

AWAY_PAUSE = 0.5  # seconds between two looks for a store that is away


class History:
    """A symbol's bars but the newest: shared by snapshots until a day closes or it is replaced."""

    __slots__ = ("_compressed", "bars", "days", "joined")

    def __init__(self, days: "array[int]", bars: list[bytes]) -> None:
        self.days = days
        self.bars = bars
        self.joined = b",".join(bars)
        self._compressed: bytes | None = None

    @property
    def compressed(self) -> bytes:
        """``joined`` as a piece of a gzip stream; made when it is first asked for."""
        if self._compressed is None:
            self._compressed = gzip_pieces.piece(self.joined)
        return self._compressed


@dataclass(frozen=True, slots=True)
class Series:
    """A symbol's trusted bars: ``history``, then the bar ``newest`` of ``day`` (epoch seconds)."""

    history: History
    day: int
    newest: bytes

    @classmethod
    def of(cls, rows: list[tuple[int, bytes]]) -> "Series":
        """From at least one (day, encoded bar), sorted by day."""
        *past, (day, newest) = rows
        return cls(History(array("q", [d for d, _ in past]), [bar for _, bar in past]), day, newest)

    def with_bar(self, day: int, bar: bytes) -> "Series":
        if day == self.day:
            return Series(self.history, day, bar)
        rows = dict(zip(self.history.days, self.history.bars, strict=True))
        rows[self.day] = self.newest
        rows[day] = bar
        return Series.of(sorted(rows.items()))

    def volumes(self, last: int) -> list[int]:
        """The volumes (shares) of the last bars."""
        return [volume_of(bar) for bar in [*self.history.bars[-last:], self.newest][-last:]]


def volume_of(bar: bytes) -> int:
    return int(bar[bar.rindex(b":") + 1 : -1])


def bar_of(encoded: bytes) -> Bar:
    """The bar of an encoded form that is ours."""
    return parse(json.loads(encoded))


def day_in(bar: bytes) -> int:
    """The day of an encoded bar, in epoch seconds."""
    at = bar.index(b'"time":"') + 8
    return epoch_of(dt.date.fromisoformat(bar[at : at + 10].decode()))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which bars of each symbol: days from ``start`` to ``end`` inclusive (epoch seconds), then the
    last ``limit`` of them; without overlays when ``trusted``."""

    start: int | None = None
    end: int | None = None
    limit: int | None = None
    trusted: bool = False


# Bodies of the whole market that are asked for again and again; any other would fill memory.
KEPT = frozenset({Selection(), Selection(limit=1)})


@dataclass(frozen=True)
class Snapshot:
    position: Position
    series: Mapping[str, Series]
    overlays: Mapping[str, tuple[int, bytes]]
    _bodies: dict[Selection, bytes] = field(default_factory=dict, repr=False)
    _gzipped: dict[Selection, bytes] = field(default_factory=dict, repr=False)
    _building: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def is_before(self, position: Position | None) -> bool:
        """Whether ``position`` is a later one of the same epoch."""
        return (
            position is not None
            and position.epoch == self.position.epoch
            and position.revision > self.position.revision
        )

    def body(self, symbols: Iterable[str] | None, selection: Selection) -> bytes:
        """JSON: {symbol: [bar, ...]} of the symbols that have bars, sorted.

        The whole market's bodies are built once a snapshot, by whoever asks first.
        """
        if symbols is not None:
            return self._build(sorted(set(symbols)), selection)
        selection = self._kept_as(selection)
        if selection not in KEPT:
            return self._build(sorted(self.series), selection)
        if selection not in self._bodies:
            with self._building:
                if selection not in self._bodies:
                    self._bodies[selection] = self._build(sorted(self.series), selection)
        return self._bodies[selection]

    def gzipped(self, symbols: Iterable[str] | None, selection: Selection) -> bytes | None:
        """The same body as a gzip file; None where none is kept: it is small, or rarely asked."""
        selection = self._kept_as(selection)
        if symbols is not None or selection not in KEPT:
            return None
        body = self.body(None, selection)
        if selection not in self._gzipped:
            with self._building:
                if selection not in self._gzipped:
                    self._gzipped[selection] = self._compress(body, selection)
        return self._gzipped[selection]

    def _kept_as(self, selection: Selection) -> Selection:
        return selection if self.overlays else replace(selection, trusted=False)

    def _compress(self, body: bytes, selection: Selection) -> bytes:
        if selection.limit:
            return gzip_pieces.join([gzip_pieces.piece(body)], plain=body)
        pieces, between = [], b"{"
        for symbol in sorted(self.series):
            series = self.series[symbol]
            head, tail = self._recent(symbol, series, trusted=selection.trusted)
            recent = b",".join(bar for _, bar in head + tail)
            before = b'%b"%b":[' % (between, symbol.encode())
            if series.history.joined:
                pieces += [gzip_pieces.piece(before), series.history.compressed]
                before = b","
            pieces.append(gzip_pieces.piece(before + recent + b"]"))
            between = b","
        pieces.append(gzip_pieces.piece(b"{}" if between == b"{" else b"}"))
        return gzip_pieces.join(pieces, plain=body)

    def _build(self, symbols: Iterable[str], selection: Selection) -> bytes:
        pieces = []
        for symbol in symbols:
            series = self.series.get(symbol)
            if series is None:
                continue
            bars = self._joined(symbol, series, selection)
            if bars:
                pieces.append(b'"%b":[%b]' % (symbol.encode(), bars))
        return b"{%b}" % b",".join(pieces)

    def _joined(self, symbol: str, series: Series, selection: Selection) -> bytes:
        head, tail = self._recent(symbol, series, trusted=selection.trusted)
        history = series.history
        if head or selection.start is not None or selection.end is not None or selection.limit:
            return _cut(history, head + tail, selection)
        newest = tail[0][1]
        return b"%b,%b" % (history.joined, newest) if history.joined else newest

    def _recent(
        self, symbol: str, series: Series, *, trusted: bool
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        """The bars after the history: (the trusted bar of a day before the overlay's, what is
        served as the newest)."""
        trusted_bar = (series.day, series.newest)
        overlay = None if trusted else self.overlays.get(symbol)
        if overlay is None or overlay[0] < series.day:
            return [], [trusted_bar]
        return ([] if overlay[0] == series.day else [trusted_bar]), [overlay]


def _cut(history: History, recent: list[tuple[int, bytes]], selection: Selection) -> bytes:
    days = history.days
    low = 0 if selection.start is None else bisect_left(days, selection.start)
    high = len(days) if selection.end is None else bisect_right(days, selection.end)
    kept = [
        bar
        for day, bar in recent
        if (selection.start is None or day >= selection.start)
        and (selection.end is None or day <= selection.end)
    ]
    if selection.limit is not None:
        kept = kept[-selection.limit :]
        low = max(low, high - (selection.limit - len(kept)))
    return b",".join([*history.bars[low:high], *kept])


class StaleError(Exception):
    """The store can't be reached, and this process has no snapshot yet."""


class SnapshotKeeper:
    """Keeps a process's snapshot at the store's revision; safe for threads.

    While one thread refreshes, the others get the previous snapshot; all do while the store is
    away. ``lifetime``: for so many seconds the store isn't asked again where it stands.
    """

    def __init__(self, store: Store, *, lifetime: float = 0.0) -> None:
        self._store = store
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._ask_at = 0.0
        self._age: float | None = None
        self._age_read_at = 0.0

    def current(self, *, at_least: Position | None = None) -> Snapshot:
        """The market as the store has it now, or as it last had it.

        ``at_least`` is a position that the caller knows of: a snapshot before it is refreshed
        first. Raises StaleError when there never was one.
        """
        held = self._snapshot
        if held is not None and time.monotonic() < self._ask_at and not held.is_before(at_least):
            return held
        if self._lock.acquire(blocking=held is None):
            try:
                # Set before it is asked: whoever expires it meanwhile knows of something newer.
                self._ask_at = time.monotonic() + self._lifetime
                self._refresh()
            except redis.RedisError as error:
                if self._snapshot is None:
                    raise StaleError("the store can't be reached") from error
                logger.warning("serving the last snapshot: the store can't be reached (%s)", error)
                self._ask_at = time.monotonic() + AWAY_PAUSE
            finally:
                self._lock.release()
        if self._snapshot is None:
            raise StaleError("the store can't be reached")
        return self._snapshot

    def expire(self) -> None:
        """Ask the store with the next read: this process has just written to it."""
        self._ask_at = 0.0

    def age(self) -> float | None:
        """Seconds since the node's last trusted update; None: never had one. Grows while the store
        is away."""
        if self._age is None:
            return None
        return self._age + time.monotonic() - self._age_read_at

    def _refresh(self) -> None:
        state = self._store.state()
        if state.age is not None:  # a new life that no trusted source has spoken to has none
            self._age, self._age_read_at = state.age, time.monotonic()
        held = self._snapshot
        if held is None or (held.position.epoch != state.position.epoch and _complete(state, held)):
            made = load(self._store, state.position)
        elif held.position.epoch == state.position.epoch and held.position != state.position:
            made = follow(self._store, held, state.position)
        else:
            return
        # What was read after a restart is of another life, and must not bear this one's name.
        if self._store.state().position.epoch == state.position.epoch:
            self._snapshot = made


def _complete(state: State, held: Snapshot) -> bool:
    """A new life of the store takes over once it has a whole market again."""
    return not held.series or state.ready_epoch == state.position.epoch


def load(store: Store, position: Position) -> Snapshot:
    """The whole market. ``position`` was read before: the label may be older than the bars, never
    newer."""
    symbols = store.symbols()
    series = {symbol: Series.of(rows) for symbol, rows in store.series(symbols) if rows}
    overlays = {symbol: (o.day, o.json) for symbol, o in store.overlays().items()}
    return Snapshot(position, series, overlays)


def follow(store: Store, held: Snapshot, position: Position) -> Snapshot:
    """The snapshot after ``held``, by the change log; the whole market when the log can't tell."""
    if position.revision < held.position.revision:
        return load(store, position)
    changes = store.changes(held.position)
    if not changes:  # the log was trimmed, or is gone
        return load(store, position)
    series, overlays = dict(held.series), dict(held.overlays)
    for change in changes:
        _apply(change, series, overlays)
    replaced = list(dict.fromkeys(c.symbol for c in changes if c.what == "replaced"))
    for symbol, rows in store.series(replaced):
        if rows:
            series[symbol] = Series.of(rows)
    return Snapshot(Position(position.epoch, changes[-1].revision), series, overlays)


def _apply(
    change: Change, series: dict[str, Series], overlays: dict[str, tuple[int, bytes]]
) -> None:
    if change.what == "withdrawn":
        overlays.pop(change.symbol, None)
    elif change.bar is not None:
        day = day_in(change.bar)
        if change.what == "PUBLIC":
            overlays[change.symbol] = (day, change.bar)
        elif change.symbol in series:
            series[change.symbol] = series[change.symbol].with_bar(day, change.bar)
        else:
            series[change.symbol] = Series.of([(day, change.bar)])
