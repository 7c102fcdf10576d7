"""The snapshot: a web process's own encoded copy of the market at one revision.

A snapshot never changes; the refresher makes the next one from it and the change log, at the cost
of what changed. Bodies are joined from encoded bars, never encoded anew. It holds the newest bar of
every symbol, and the histories that fit the process's limit; the others are read from the store
when a request needs them.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tickers.snapshot.coding import Coding
from tickers.snapshot.memory_limit import MemoryLimit, MemoryUse
from tickers.snapshot.series import History, Row, Series, volume_of
from tickers.store.records import Position
from tickers.store.revisions import Revisions
from tickers.store.store import Store

PART = 10  # symbols that are read from the store, and sent, at a time


class StaleError(Exception):
    """This process doesn't hold what was asked for, and the store is away or has no complete
    market."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice of each symbol's bars: the last ``limit`` of the days from ``start`` to ``end``.

    The days are inclusive, in epoch seconds. When ``trusted``, overlays are left out.
    """

    start: int | None = None
    end: int | None = None
    limit: int | None = None
    trusted: bool = False

    def has(self, day: int) -> bool:
        return (self.start is None or day >= self.start) and (self.end is None or day <= self.end)


# Only these bodies of the whole market are kept: they are asked for often, and others would fill
# memory.
EVERYTHING, LAST = Selection(), Selection(limit=1)
KEPT = frozenset({EVERYTHING, LAST})


@dataclass(frozen=True)
class Snapshot:
    position: Position
    series: Mapping[str, Series]
    overlays: Mapping[str, tuple[int, bytes]]
    store: Store = field(repr=False)
    room: MemoryLimit
    revisions: Mapping[str, Revisions]
    removed: Mapping[str, int]  # symbol → the revision at which it left the market
    _bodies: dict[Selection, bytes] = field(default_factory=dict, repr=False)
    _packed: dict[tuple[Selection, str], bytes] = field(default_factory=dict, repr=False)
    _building: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def is_before(self, position: Position | None) -> bool:
        """Tell whether ``position`` is a later one of the same epoch."""
        return (
            position is not None
            and position.epoch == self.position.epoch
            and position.revision > self.position.revision
        )

    # --- Whole answers --------------------------------------------------------------------------

    def body(self, symbols: Iterable[str] | None, selection: Selection) -> bytes:
        """Return the JSON {symbol: [bar, ...]} of the symbols that have bars, sorted.

        The whole market's bodies are built once a snapshot, with the first request for them. Raises
        StaleError, and what redis raises, when a history that isn't held can't be read.
        """
        if symbols is not None and not self.room.not_held:
            return b"{%b}" % self._entries(self._known(symbols), selection, {})
        selection = self._kept_as(selection)
        if symbols is not None or not self._keeps(selection):
            return b"".join(self.parts(symbols, selection))
        if selection not in self._bodies:
            with self._building:
                if selection not in self._bodies:
                    self._bodies[selection] = b"".join(self._plain(selection))
        return self._bodies[selection]

    def packed(
        self, symbols: Iterable[str] | None, selection: Selection, coding: Coding
    ) -> bytes | None:
        """Return the same body compressed; None when it isn't kept: it is small, or rarely asked
        for."""
        selection = self._kept_as(selection)
        if symbols is not None or not self._keeps(selection):
            return None
        key = selection, coding.NAME
        if key not in self._packed:
            with self._building:
                if key not in self._packed:
                    self._packed[key] = coding.join(self._pieces(selection, coding))
        return self._packed[key]

    def _kept_as(self, selection: Selection) -> Selection:
        if selection.trusted and not self.overlays:
            return replace(selection, trusted=False)
        return selection

    def _keeps(self, selection: Selection) -> bool:
        return selection == LAST or (selection == EVERYTHING and self.room.for_bodies)

    def _plain(self, selection: Selection) -> Iterator[bytes]:
        if selection == LAST:
            return self.parts(None, selection)
        return (one if isinstance(one, bytes) else one.joined for one in self._everything())

    def _pieces(self, selection: Selection, coding: Coding) -> Iterator[tuple[bytes, bytes]]:
        """Yield the body in (plain, compressed) pieces.

        A history is a piece that is compressed once; what lies between two of them is one piece.
        """
        if selection == LAST:
            body = self._bodies.get(selection) or b"".join(self._plain(selection))
            yield body, coding.piece(body)
            return
        between: list[bytes] = []
        for one in self._everything():
            if isinstance(one, bytes):
                between.append(one)
                continue
            plain, between = b"".join(between), []
            yield plain, coding.piece(plain)
            yield one.joined, one.packed(coding)
        plain = b"".join(between)
        yield plain, coding.piece(plain)

    def _everything(self) -> Iterator[bytes | History]:
        """Yield the whole market's body: histories, and what lies between them."""
        before = b"{"
        for symbol in sorted(self.series):
            history = self.series[symbol].history
            yield b'%b"%b":[' % (before, symbol.encode())
            if history:
                yield history
                yield b","
            yield b",".join([bar for _, bar in self._recent(symbol, trusted=False)])
            before = b"],"
        yield b"{}" if before == b"{" else b"]}"

    # --- What changed ---------------------------------------------------------------------------

    def changes(self, since: int, symbols: Iterable[str] | None = None) -> bytes:
        """Return the JSON {"position", "bars": [bar, ...], "replaced": [symbol, ...], "removed":
        [symbol, ...]} of what changed after revision ``since``.

        The bars are trusted ones, as they are now, in the order in which they changed. A symbol
        that is "replaced" has no bars there: its whole series must be read. The answer is the same
        for all who ask from one position; the work grows with the symbols and with the bars in the
        answer. Raises as ``body`` does.
        """
        names = self.revisions.keys() if symbols is None else self.revisions.keys() & set(symbols)
        changed = [name for name in names if self.revisions[name].latest > since]
        replaced = [name for name in changed if self.revisions[name].history > since]
        days = {
            name: [one for one in self.revisions[name].days() if one[1] > since]
            for name in changed
            if self.revisions[name].history <= since
        }
        gone = self.removed.keys() if symbols is None else self.removed.keys() & set(symbols)
        # A symbol that has just come back may still be among them: the snapshot is read in steps.
        gone -= self.revisions.keys()
        return b'{"position":"%b","bars":[%b],"replaced":[%b],"removed":[%b]}' % (
            str(self.position).encode(),
            b",".join(self._bars_of(days)),
            _names(replaced),
            _names(name for name in gone if self.removed[name] > since),
        )

    def _bars_of(self, days: Mapping[str, Sequence[tuple[int, int]]]) -> list[bytes]:
        """Return the trusted bars of symbol → (day, revision) pairs, sorted by revision."""
        read = self._read(
            [
                name
                for name, of_name in days.items()
                if self.series[name].history is None
                and any(day < self.series[name].day for day, _ in of_name)
            ]
        )
        found = []
        for name, of_name in days.items():
            series = self.series[name]
            past = read.get(name, series.history) or History()
            for day, revision in of_name:
                bar = series.newest if day == series.day else past.cut(day, day, None)
                if bar:  # else the history is later than this snapshot, and the log has the change
                    found.append((revision, name, day, bar))
        return [bar for *_, bar in sorted(found)]

    # --- Answers in parts -----------------------------------------------------------------------

    def answers_in_parts(self, symbols: Iterable[str] | None, selection: Selection) -> bool:
        """Tell whether the answer should be sent as it is made: it is large, or isn't held."""
        if self.room.for_bodies or self._keeps(self._kept_as(selection)):
            return False
        return symbols is None or len(set(symbols)) > PART

    def parts(self, symbols: Iterable[str] | None, selection: Selection) -> Iterator[bytes]:
        """Yield the same body in parts of PART symbols each; raises as ``body`` does."""
        names = self._known(symbols)
        before = b"{"
        for at in range(0, len(names), PART):
            some = names[at : at + PART]
            entries = self._entries(some, selection, self._read_missing(some, selection))
            if entries:
                yield before + entries
                before = b","
        yield b"{}" if before == b"{" else b"}"

    def _known(self, symbols: Iterable[str] | None) -> list[str]:
        return sorted(self.series if symbols is None else self.series.keys() & set(symbols))

    def _entries(
        self, symbols: Sequence[str], selection: Selection, read: Mapping[str, History]
    ) -> bytes:
        """Return the body's part of these symbols; ``read`` has the histories that aren't held."""
        entries = []
        for symbol in symbols:
            bars = self._joined(symbol, read.get(symbol), selection)
            if bars:
                entries.append(b'"%b":[%b]' % (symbol.encode(), bars))
        return b",".join(entries)

    def _joined(self, symbol: str, read: History | None, selection: Selection) -> bytes:
        kept = self._kept_recent(symbol, selection)
        history = self.series[symbol].history if read is None else read
        left = None if selection.limit is None else selection.limit - len(kept)
        if history and left != 0:
            past = history.cut(selection.start, selection.end, left)
            if past:
                kept = [past, *kept]
        return b",".join(kept)

    def _kept_recent(self, symbol: str, selection: Selection) -> list[bytes]:
        recent = self._recent(symbol, trusted=selection.trusted)
        kept = [bar for day, bar in recent if selection.has(day)]
        return kept if selection.limit is None else kept[-selection.limit :]

    def _recent(self, symbol: str, *, trusted: bool) -> list[Row]:
        """Return the bars after the history: the newest trusted one, and any overlay."""
        series = self.series[symbol]
        overlay = None if trusted else self.overlays.get(symbol)
        if overlay is None or overlay[0] < series.day:
            return [(series.day, series.newest)]
        return [overlay] if overlay[0] == series.day else [(series.day, series.newest), overlay]

    # --- What isn't held ------------------------------------------------------------------------

    def volumes(self, symbols: Iterable[str], last: int) -> dict[str, list[int]]:
        """Return the volumes (shares) of each symbol's ``last`` trusted bars."""
        names = [symbol for symbol in symbols if symbol in self.series]
        read = self._read([name for name in names if self.series[name].history is None], last)
        volumes = {}
        for name in names:
            series = self.series[name]
            past = read.get(name, series.history) or History()
            bars = [*past.last(last - 1), series.newest]
            volumes[name] = [volume_of(bar) for bar in bars]
        return volumes

    def _read_missing(self, symbols: Sequence[str], selection: Selection) -> dict[str, History]:
        """Read from the store the histories of these symbols that the selection needs."""
        missing = [s for s in symbols if self._misses(s, selection)]
        if selection.limit is None or selection.end is not None:
            return self._read(missing)
        return self._read(missing, selection.limit)

    def _misses(self, symbol: str, selection: Selection) -> bool:
        series = self.series[symbol]
        if series.history is not None:
            return False
        if selection.start is not None and selection.start >= series.day:
            return False
        return selection.limit != len(self._kept_recent(symbol, selection))

    def _read(self, symbols: Sequence[str], last: int = 0) -> dict[str, History]:
        """Read histories from the store, whole or so much that with the newest bar they have
        ``last`` bars.

        They may be later than this snapshot, whose newest bars are used. In another life of the
        store they might be earlier than this snapshot's position says: StaleError.
        """
        if not symbols:
            return {}
        read, short = {}, []
        for symbol, rows in self.store.series(symbols, last=last and last + 1):
            past = [row for row in rows if row[0] < self.series[symbol].day]
            read[symbol] = History(past)
            if len(rows) > last > len(past) + 1:  # some rows are later than this snapshot
                short.append(symbol)
        if self.store.state().position.epoch != self.position.epoch:
            raise StaleError("the store has begun another life, whose market isn't complete yet")
        return read | self._read(short)

    # --- Memory ---------------------------------------------------------------------------------

    def memory(self) -> MemoryUse:
        """Return the present use; bodies and compressed forms are made when first asked for."""
        held = [series.history for series in self.series.values() if series.history is not None]
        used = sum(history.size + history.packed_size for history in held)
        used += sum(len(series.newest) for series in self.series.values())
        used += sum(len(bar) for _, bar in self.overlays.values())
        used += sum(revised.size for revised in self.revisions.values())
        used += sum(map(len, [*self._bodies.values(), *self._packed.values()]))
        return MemoryUse(used, self.room.limit, len(held), len(self.series) - len(held))


def _names(symbols: Iterable[str]) -> bytes:
    return b",".join(b'"%b"' % symbol.encode() for symbol in sorted(symbols))
