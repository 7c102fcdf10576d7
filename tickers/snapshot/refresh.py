"""Keeps a process's snapshot at the store's revision."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import redis

from tickers.snapshot.lives import Lives
from tickers.snapshot.memory_limit import MemoryLimit, MemoryUse
from tickers.snapshot.series import Series
from tickers.snapshot.snapshot import Snapshot, StaleError
from tickers.store.records import Change, Position, day_in
from tickers.store.revisions import Revisions
from tickers.store.store import Store
from tickers.verdict import Authority

logger = logging.getLogger(__name__)

AWAY_PAUSE = 0.5  # seconds between two looks for a store that is away
MEMORY_LIMIT = 512 * 2**20  # bytes: 3,000 symbols with 400 bars each


class SnapshotRefresher:
    """Keeps a process's snapshot at the store's revision; safe for threads.

    While one thread refreshes, the others get the previous snapshot; all do while the store is
    away. ``lifetime``: for so many seconds the store isn't asked again where it stands.
    ``memory_limit``: bytes that a snapshot holds, with the bodies that are kept of it.
    """

    def __init__(
        self, store: Store, *, lifetime: float = 0.0, memory_limit: int = MEMORY_LIMIT
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._memory_limit = memory_limit
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._ask_at = 0.0
        self._asked_at = float("-inf")
        self._is_behind = False  # this process has written since it last asked
        self._is_away = False  # so the store was when it was last asked
        self._lives = Lives(store)
        self._was_read = False  # since the last change that was heard of
        self._age: float | None = None
        self._age_read_at = 0.0

    def current(self, *, at_least: Position | None = None) -> Snapshot:
        """The market as the store has it now, or as it last had it.

        ``at_least`` is a position that the caller knows of: a snapshot before it is refreshed
        first, as one is that lacks what this process has written. Raises StaleError when there
        never was one.
        """
        self._was_read = True
        if not self._will_do(at_least):
            held = self._snapshot
            lacks = held is None or self._is_behind or held.is_before(at_least)
            self._ask(at_least, wait=lacks)
        if self._snapshot is None:
            raise StaleError("the store can't be reached")
        return self._snapshot

    def recent(self, *, within: float) -> Snapshot:
        """The market as this process has it, if it asked the store ``within`` so many seconds; else
        as ``current`` has it.

        For what changes slowly: it costs nothing while the market moves.
        """
        held = self._snapshot
        if held is not None and time.monotonic() < self._asked_at + within:
            return held
        return self.current()

    def expire(self) -> None:
        """Ask the store with the next read: this process has just written to it."""
        self._is_behind = True

    def store_changed(self) -> None:
        """The store has changed. Whoever reads needn't wait for the refresh, as long as somebody
        does; what nobody reads costs none."""
        self._ask_at = 0.0
        if self._was_read:
            self._was_read = False
            self._ask(wait=False)

    @property
    def is_away(self) -> bool:
        """Whether the store couldn't be reached when it was last asked."""
        return self._is_away

    @property
    def may_be_behind(self) -> bool:
        """Whether the store may have told others of a later revision of this epoch: it is away, or
        lives another life whose market isn't complete yet. Otherwise the snapshot is where the
        store was when it was last asked."""
        return self._is_away or self._lives.is_waiting

    def age(self) -> float | None:
        """Seconds since the last trusted update of the market that is served; None: never had one.
        Grows while the store is away, and while another life of it has no complete market."""
        if self._age is None:
            return None
        return self._age + time.monotonic() - self._age_read_at

    def complaints(self) -> list[str]:
        """What is wrong with the market that is served, for an operator."""
        return self._lives.complaints(self._snapshot)

    def memory(self) -> MemoryUse:
        """What this process holds; nothing before its first snapshot."""
        held = self._snapshot
        return held.memory() if held else MemoryUse(0, self._memory_limit, 0, 0)

    def _will_do(self, at_least: Position | None) -> bool:
        """Whether the store needn't be asked for a reader who knows of ``at_least``."""
        held = self._snapshot
        if held is None or self._is_behind or time.monotonic() >= self._ask_at:
            return False
        return self._is_away or not held.is_before(at_least)

    def _ask(self, at_least: Position | None = None, *, wait: bool) -> None:
        """Ask the store where it stands, and go there. While another thread does: nothing, or
        ``wait`` for it, and ask only if that won't do."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._will_do(at_least):
                return
            # Set before it is asked: whoever writes meanwhile knows of something newer.
            self._is_behind = False
            self._asked_at = time.monotonic()
            self._ask_at = self._asked_at + self._lifetime
            self._refresh()
            self._is_away = False
        except redis.RedisError as error:
            if self._snapshot is not None:
                logger.warning("serving the last snapshot: the store can't be reached (%s)", error)
            self._is_away = True
            self._ask_at = time.monotonic() + AWAY_PAUSE
        finally:
            self._lock.release()

    def _refresh(self) -> None:
        held = self._snapshot
        changes: list[Change] | None = None
        if held is None:
            state = self._store.state()
        else:
            state, changes = self._store.changes_since(held.position)
        takes_over = self._lives.take_over(state, held)
        if takes_over:  # else its age isn't that of what is served
            self._age, self._age_read_at = state.age, time.monotonic()
        if held and (changes == [] or not takes_over):
            return
        if held is None or changes is None:
            made = load(self._store, state.position, memory_limit=self._memory_limit)
        else:
            made = follow(held, changes)
        # What was read after a restart is of another life, and must not bear this one's name.
        read_later = changes is None or any(change.what == "replaced" for change in changes)
        if read_later and self._store.state().position.epoch != state.position.epoch:
            return
        self._tell(made.room, held.room if held else None)
        self._snapshot = made

    def _tell(self, room: MemoryLimit, before: MemoryLimit | None) -> None:
        if room.not_held and not (before and before.not_held):
            logger.warning(
                "the snapshot's memory limit of %d MB is reached: %d of %d symbols are held with "
                "their history, the others' are read from the store (SNAPSHOT_MEMORY)",
                room.limit // 2**20,
                room.symbols - room.not_held,
                room.symbols,
            )


def load(store: Store, position: Position, *, memory_limit: int = MEMORY_LIMIT) -> Snapshot:
    """The whole market. ``position`` was read before: the label may be older than the bars, never
    newer."""
    removed = store.removed()  # before the series: what leaves meanwhile, the log will tell
    symbols = store.symbols()
    room = MemoryLimit(memory_limit, len(symbols))
    series: dict[str, Series] = {}
    revisions: dict[str, Revisions] = {}
    for symbol, rows, revised in store.series_with_revisions(symbols):
        series[symbol], revisions[symbol] = room.hold(Series.of(rows)), revised
    overlays = {symbol: (o.day, o.json) for symbol, o in store.overlays().items()}
    return Snapshot(position, series, overlays, store, room, revisions, removed)


def follow(held: Snapshot, changes: Sequence[Change]) -> Snapshot:
    """The snapshot after ``held`` and these changes, which came right after it."""
    store = held.store
    series, overlays = dict(held.series), dict(held.overlays)
    revisions, removed = dict(held.revisions), dict(held.removed)
    room = replace(held.room, symbols=len(series.keys() | {change.symbol for change in changes}))
    for change in changes:
        _apply(change, series, overlays, room)
        _revise(change, revisions, removed)
    # Once for all their changes; a series that has left the market since isn't there to be read.
    replaced = list(dict.fromkeys(c.symbol for c in changes if c.what == "replaced"))
    for symbol, rows in store.series([symbol for symbol in replaced if symbol in revisions]):
        if rows:
            series[symbol] = room.hold(Series.of(rows), instead_of=series.get(symbol))
    room.symbols = len(series)
    for symbol in reversed(series):  # new symbols' newest bars come before the last ones' histories
        if room.fits():
            break
        series[symbol] = room.drop(series[symbol])
    position = Position(held.position.epoch, changes[-1].revision)
    return Snapshot(position, series, overlays, store, room, revisions, removed)


def _apply(
    change: Change,
    series: dict[str, Series],
    overlays: dict[str, tuple[int, bytes]],
    room: MemoryLimit,
) -> None:
    if change.what == "withdrawn":
        overlays.pop(change.symbol, None)
    elif change.what == "removed":
        if gone := series.pop(change.symbol, None):
            room.leave(gone)
    elif change.bar is not None:
        day = day_in(change.bar)
        if change.what == Authority.PUBLIC:
            overlays[change.symbol] = (day, change.bar)
            return
        before = series.get(change.symbol)
        made = before.with_bar(day, change.bar) if before else Series.of([(day, change.bar)])
        series[change.symbol] = room.hold(made, instead_of=before)


def _revise(change: Change, revisions: dict[str, Revisions], removed: dict[str, int]) -> None:
    """Reckon what the store's scripts did with the same change."""
    if change.what in ("withdrawn", Authority.PUBLIC):
        return
    if change.what == "removed":
        revisions.pop(change.symbol, None)
        removed[change.symbol] = change.revision
        return
    # One that comes back is read whole by all who knew it before it left.
    left_at = removed.pop(change.symbol, 0)
    before = revisions.get(change.symbol) or Revisions(left_at)
    if change.bar is None:
        revisions[change.symbol] = before.replaced(change.revision)
    else:
        revisions[change.symbol] = before.with_bar(day_in(change.bar), change.revision)
