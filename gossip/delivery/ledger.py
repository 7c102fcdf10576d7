"""The ledger holds, for each peer, the revision of each symbol that the peer has taken.

A peer's backlog is the store's ``changed`` compared with its ledger. The ledger is kept in Redis,
so that it outlives every process; the leader, who alone may write it, has a copy in memory. A
revision is valid only in the epoch of the store that gave it out: in another epoch nothing is
written, and the copy is read again.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis

from tickers.store.records import Newest, Position
from tickers.store.scripts import Script
from tickers.store.store import Store, market_script

_SCRIPT = Path(__file__).with_name("lua") / "ledger.lua"


class Changed:
    """The store's ``changed`` and the bars of its symbols, shared by the senders' threads.

    It is read once for all peers that ask at one position.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._position: Position | None = None
        self._revisions: dict[str, int] = {}
        self._newest: dict[str, Newest] = {}

    def at(self, position: Position) -> Mapping[str, int]:
        """Return symbol → revision, as of ``position`` or later."""
        with self._lock:
            if position != self._position:
                self._revisions = self._store.changed()
                self._newest = {}
                self._position = position
            return self._revisions

    def newest(self, symbols: Collection[str]) -> Mapping[str, Newest]:
        """Return the newest trusted bars of these symbols, and maybe of others.

        They were read after the revisions that ``at`` returned last.
        """
        with self._lock:
            self._newest |= self._store.newest(set(symbols) - self._newest.keys())
            return self._newest


class Ledger:
    """One peer's ledger, written under the lease named by ``fence``; for one thread.

    Times are seconds of ``monotonic``. Every method that reaches Redis raises FencedError when
    another worker has the lease, and what redis raises. ``refresh`` must be called before the
    store's ``changed`` is read: then a revision that is taken belongs to the epoch it is written
    under, or is refused.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        peer_id: str,
        fence: str,
        monotonic: Callable[[], float],
    ) -> None:
        self._script = market_script(client, _SCRIPT)
        self._peer_id = peer_id
        self._fence = fence
        self._monotonic = monotonic
        self.now_ms = 0  # Redis TIME at the last refresh
        self._epoch = ""
        self._revisions: dict[str, int] = {}
        self._taken_at: dict[str, float] = {}
        self._lacking_since: dict[str, int] = {}  # the revision from which the symbol is lacking
        self._unsaved: dict[str, int] = {}

    def refresh(self) -> Position:
        """Write what couldn't be written before; read the ledger again in a new epoch.

        Returns the store's position.
        """
        self._save()
        epoch, revision, self.now_ms = _run(self._script, "check", self._fence)
        if epoch.decode() != self._epoch:
            self._read()
        return Position(epoch.decode(), revision)

    def lacking(self, changed: Mapping[str, int]) -> list[str]:
        """Return the symbols that the peer lacks, the longest-waiting first.

        ``changed`` is symbol → revision, as the store has it. A symbol that changes again while it
        waits keeps its place, or one that changes often would never be sent. A symbol is lacking
        unless its revisions are equal: a ledger that is ahead is of a store that came back older.
        """
        lacking = [symbol for symbol in changed if self._revisions.get(symbol) != changed[symbol]]
        since = self._lacking_since
        self._lacking_since = {symbol: since.get(symbol, changed[symbol]) for symbol in lacking}
        return sorted(
            lacking,
            key=lambda symbol: (
                self._lacking_since[symbol],
                self._revisions.get(symbol, 0),
                symbol,
            ),
        )

    def taken_at(self, symbol: str) -> float | None:
        """Return when the peer last took a bar of this symbol; None: never."""
        return self._taken_at.get(symbol)

    @property
    def last_taken_at(self) -> float | None:
        return max(self._taken_at.values(), default=None)

    def take(self, revisions: Mapping[str, int]) -> None:
        """Note that the peer has the bars of these revisions (symbol → revision).

        What can't be written to Redis now is written with the next ``refresh``.
        """
        now = self._monotonic()
        for symbol, revision in revisions.items():
            self._revisions[symbol] = revision
            self._taken_at[symbol] = now
            self._lacking_since.pop(symbol, None)
        self._unsaved.update(revisions)
        self._save()

    def _save(self) -> None:
        if not self._unsaved:
            return
        pairs = [text for pair in self._unsaved.items() for text in pair]
        # The script writes nothing in another epoch; the next refresh then reads the ledger again.
        header = {"peer": self._peer_id, "of_epoch": self._epoch}
        _run(self._script, "take", self._fence, header, pairs)
        self._unsaved.clear()

    def _read(self) -> None:
        epoch, now, *pairs = _run(self._script, "open", self._fence, {"peer": self._peer_id})
        self._revisions.clear()
        self._taken_at.clear()
        self._lacking_since.clear()
        for symbol, text in zip(pairs[::2], pairs[1::2], strict=True):
            revision, taken_at = text.split()
            self._revisions[symbol.decode()] = int(revision)
            age = max(0.0, (now - int(taken_at)) / 1000)
            self._taken_at[symbol.decode()] = self._monotonic() - age
        self._epoch = epoch.decode()


class Notes:
    """The notes about one peer as an older node (field → text), kept beside its ledger.

    They are written under the lease named by ``fence``; methods raise what Ledger's do.
    """

    def __init__(self, client: "redis.Redis", *, peer_id: str, fence: str) -> None:
        self._script = market_script(client, _SCRIPT)
        self._peer = {"peer": peer_id}
        self._fence = fence

    def read(self) -> tuple[dict[str, str], int]:
        """Return the notes, and Redis TIME in milliseconds."""
        now_ms, *pairs = _run(self._script, "notes", self._fence, self._peer)
        texts = [text.decode() for text in pairs]
        return dict(zip(texts[::2], texts[1::2], strict=True)), now_ms

    def write(self, fields: Mapping[str, str | None]) -> None:
        """Write these fields; None deletes one."""
        if fields:
            pairs = [text or "" for pair in fields.items() for text in pair]
            _run(self._script, "note", self._fence, self._peer, pairs)


def delete_others(client: "redis.Redis", *, fence: str, peer_ids: Iterable[str]) -> int:
    """Delete the ledgers of all peers but these; return how many. Raises what Ledger raises."""
    script = market_script(client, _SCRIPT)
    return int(_run(script, "keep", fence, values=peer_ids))


def _run(
    script: Script,
    action: str,
    fence: str,
    of_action: Mapping[str, str] = MappingProxyType({}),
    values: Iterable[str | int] = (),
) -> Any:
    common = {"action": action, "fence": fence, "new_epoch": secrets.token_hex(8)}
    return script({**common, **of_action}, values)
