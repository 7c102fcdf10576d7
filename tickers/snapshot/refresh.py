"""The refresher keeps a process's snapshot at the store's revision, at the cost of what changed."""

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

AWAY_PAUSE = 0.5  # seconds after which a store that is away is asked again
MEMORY_LIMIT = 512 * 2**20  # bytes: 3,000 symbols with 400 bars each


class SnapshotRefresher:
    """The refresher of a process's snapshot, safe for threads.

    While one thread refreshes, the others get the previous snapshot; all do while the store is
    away. ``lifetime`` is for how many seconds the store isn't asked again for its position.
    ``memory_limit`` is the bytes that a snapshot holds, with the bodies that are kept of it.
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
        self._outage: redis.RedisError | None = None  # why the store couldn't be asked last time
        self._lives = Lives(store)
        self._was_read = False  # the snapshot was read since the listener's last change
        self._age: float | None = None
        self._age_read_at = 0.0

    def current(self, *, at_least: Position | None = None) -> Snapshot:
        """Return the market as the store has it now, or as it last had it.

        ``at_least`` is a position that the caller knows of: a snapshot before it is refreshed
        first, as is one without what this process has written. Raises StaleError when there never
        was a snapshot.
        """
        self._was_read = True
        if not self._is_recent_enough(at_least):
            held = self._snapshot
            must_wait = held is None or self._is_behind or held.is_before(at_least)
            self._ask(at_least, wait=must_wait)
        if self._snapshot is None:
            raise StaleError("the store can't be reached") from self._outage
        return self._snapshot

    def recent(self, *, within: float) -> Snapshot:
        """Return the snapshot if the store was asked ``within`` so many seconds, else ``current``.

        It is for values that change slowly, and costs nothing while the market moves.
        """
        held = self._snapshot
        if held is not None and time.monotonic() < self._asked_at + within:
            return held
        return self.current()

    def expire(self) -> None:
        """Make the next read ask the store, as this process has just written to it."""
        self._is_behind = True

    def store_changed(self) -> None:
        """Refresh, as the store has changed, so that the next reader needn't wait for it.

        A snapshot that nobody has read since the last change isn't refreshed.
        """
        self._ask_at = 0.0
        if self._was_read:
            self._was_read = False
            self._ask(wait=False)

    @property
    def is_away(self) -> bool:
        """Return whether the store couldn't be reached when it was last asked."""
        return self._outage is not None

    @property
    def has_market(self) -> bool:
        """Return whether this process has a market to serve; the store isn't asked."""
        return self._snapshot is not None and bool(self._snapshot.series)

    @property
    def may_be_behind(self) -> bool:
        """Return whether the store may have given others a later revision of this epoch.

        It may if it is away, or has another epoch whose market isn't complete yet. Otherwise the
        snapshot is at the position that the store had when it was last asked.
        """
        return self.is_away or self._lives.is_waiting

    def age(self) -> float | None:
        """Return the seconds since the last trusted update of the served market; None: never.

        It grows while the store is away, and while its new life has no complete market.
        """
        if self._age is None:
            return None
        return self._age + time.monotonic() - self._age_read_at

    def complaints(self) -> list[str]:
        """Return what is wrong with the market that is served, for an operator."""
        return self._lives.complaints(self._snapshot)

    def memory(self) -> MemoryUse:
        """Return the memory that the snapshot uses; 0 before the first one."""
        held = self._snapshot
        return held.memory() if held else MemoryUse(0, self._memory_limit, 0, 0)

    def _is_recent_enough(self, at_least: Position | None) -> bool:
        """Return whether the store needn't be asked for a reader who knows of ``at_least``."""
        held = self._snapshot
        if held is None or self._is_behind or time.monotonic() >= self._ask_at:
            return False
        return self.is_away or not held.is_before(at_least)

    def _ask(self, at_least: Position | None = None, *, wait: bool) -> None:
        """Ask the store for its position, and refresh the snapshot to it.

        While another thread does so, return at once, or ``wait`` for it and ask only if its
        snapshot isn't recent enough.
        """
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._is_recent_enough(at_least):
                return
            # Reset before the store is asked, so that a write meanwhile sets it again.
            self._is_behind = False
            self._asked_at = time.monotonic()
            self._ask_at = self._asked_at + self._lifetime
            self._refresh()
            self._outage = None
        except redis.RedisError as error:
            if self._snapshot is not None:
                logger.warning("serving the last snapshot: the store can't be reached (%s)", error)
            self._outage = error.with_traceback(None)
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
        if takes_over:  # else the store's age isn't that of the served market
            self._age, self._age_read_at = state.age, time.monotonic()
        if held and (changes == [] or not takes_over):
            return
        if held is None or changes is None:
            made = load(self._store, state.position, memory_limit=self._memory_limit)
        else:
            made = follow(held, changes)
        # Bars read after a restart belong to another epoch, and must not get this one's label.
        read_later = changes is None or any(change.what == "replaced" for change in changes)
        if read_later and self._store.state().position.epoch != state.position.epoch:
            return
        self._log_limit(made.room, held.room if held else None)
        self._snapshot = made

    def _log_limit(self, room: MemoryLimit, before: MemoryLimit | None) -> None:
        if room.not_held and not (before and before.not_held):
            logger.warning(
                "the snapshot's memory limit of %d MB is reached: %d of %d symbols are held with "
                "their history, the others' are read from the store (SNAPSHOT_MEMORY)",
                room.limit // 2**20,
                room.symbols - room.not_held,
                room.symbols,
            )


def load(store: Store, position: Position, *, memory_limit: int = MEMORY_LIMIT) -> Snapshot:
    """Return a snapshot of the whole market.

    ``position`` was read before: the label may be older than the bars, never newer.
    """
    removed = store.removed()  # read first, as the log tells of symbols that are removed later
    symbols = store.symbols()
    room = MemoryLimit(memory_limit, len(symbols))
    series: dict[str, Series] = {}
    revisions: dict[str, Revisions] = {}
    for symbol, rows, revised in store.series_with_revisions(symbols):
        series[symbol], revisions[symbol] = room.hold(Series.of(rows)), revised
    overlays = {symbol: (o.day, o.json) for symbol, o in store.overlays().items()}
    return Snapshot(position, series, overlays, store, room, revisions, removed)


def follow(held: Snapshot, changes: Sequence[Change]) -> Snapshot:
    """Return the snapshot after these changes, which follow ``held`` without a gap."""
    store = held.store
    series, overlays = dict(held.series), dict(held.overlays)
    revisions, removed = dict(held.revisions), dict(held.removed)
    room = replace(held.room, symbols=len(series.keys() | {change.symbol for change in changes}))
    for change in changes:
        _apply(change, series, overlays, room)
        _revise(change, revisions, removed)
    # Each is read once for all its changes, unless it has left the market since.
    replaced = list(dict.fromkeys(c.symbol for c in changes if c.what == "replaced"))
    for symbol, rows in store.series([symbol for symbol in replaced if symbol in revisions]):
        if rows:
            series[symbol] = room.hold(Series.of(rows), instead_of=series.get(symbol))
    room.symbols = len(series)
    for symbol in reversed(series):  # newest bars of new symbols matter more than old histories
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
        if before and before.day == day:  # its history is held, or not, as before
            series[change.symbol] = before.with_bar(day, change.bar)
            return
        made = before.with_bar(day, change.bar) if before else Series.of([(day, change.bar)])
        series[change.symbol] = room.hold(made, instead_of=before)


def _revise(change: Change, revisions: dict[str, Revisions], removed: dict[str, int]) -> None:
    """Change the revisions as the store's scripts did for the same change."""
    if change.what in ("withdrawn", Authority.PUBLIC):
        return
    if change.what == "removed":
        revisions.pop(change.symbol, None)
        removed[change.symbol] = change.revision
        return
    # A symbol that comes back has the revision of its removal as its history's, so that all who
    # knew it before read it whole.
    left_at = removed.pop(change.symbol, 0)
    before = revisions.get(change.symbol) or Revisions(left_at)
    if change.bar is None:
        revisions[change.symbol] = before.replaced(change.revision)
    else:
        revisions[change.symbol] = before.with_bar(day_in(change.bar), change.revision)
