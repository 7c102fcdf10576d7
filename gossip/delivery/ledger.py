"""The ledger: per peer, the revision of each symbol that it has taken.

What a peer lacks is the store's ``changed`` compared with its ledger. The ledger lives in Redis, so
that it outlives every process; the leader, the only one who may write it, keeps a copy in memory.
A revision means something only in the store's epoch in which it was given out: in another epoch
nothing is written, and the copy is read again.
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
    """The store's ``changed``, and the bars it tells of, read once for all peers that ask at one
    position; for threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._position: Position | None = None
        self._revisions: dict[str, int] = {}
        self._newest: dict[str, Newest] = {}

    def at(self, position: Position) -> Mapping[str, int]:
        """symbol → revision, as of ``position`` or later."""
        with self._lock:
            if position != self._position:
                self._revisions = self._store.changed()
                self._newest = {}
                self._position = position
            return self._revisions

    def newest(self, symbols: Collection[str]) -> Mapping[str, Newest]:
        """The newest trusted bars of these symbols and maybe of others, read after what ``at``
        returned last."""
        with self._lock:
            self._newest |= self._store.newest(set(symbols) - self._newest.keys())
            return self._newest


class Ledger:
    """One peer's ledger, under the lease named by ``fence``; for one thread.

    Times are seconds of ``monotonic``. Every method that reaches Redis raises FencedError when the
    lease is another's, and what redis raises. Call ``refresh`` before the store's ``changed`` is
    read: then a revision that is taken belongs to the epoch it is written under, or is refused.
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
        self._lacking_since: dict[str, int] = {}  # the revision with which the lack began
        self._unsaved: dict[str, int] = {}

    def refresh(self) -> Position:
        """Write what couldn't be written before, and read the ledger again in a new epoch; returns
        where the store stands."""
        self._save()
        epoch, revision, self.now_ms = _run(self._script, "check", self._fence)
        if epoch.decode() != self._epoch:
            self._read()
        return Position(epoch.decode(), revision)

    def lacking(self, changed: Mapping[str, int]) -> list[str]:
        """The symbols that the peer lacks, the longest-waiting first.

        ``changed``: symbol → revision, as the store tells. A symbol that changes again while it
        waits keeps its place: whoever changes often would never have its turn otherwise. Taken is
        only the very revision: a ledger that is ahead has survived a store that came back older.
        """
        lacks = [symbol for symbol in changed if self._revisions.get(symbol) != changed[symbol]]
        since = self._lacking_since
        self._lacking_since = {symbol: since.get(symbol, changed[symbol]) for symbol in lacks}
        return sorted(
            lacks,
            key=lambda symbol: (
                self._lacking_since[symbol],
                self._revisions.get(symbol, 0),
                symbol,
            ),
        )

    def taken_at(self, symbol: str) -> float | None:
        """When the peer last took a bar of this symbol; None: never."""
        return self._taken_at.get(symbol)

    @property
    def last_taken_at(self) -> float | None:
        return max(self._taken_at.values(), default=None)

    def take(self, revisions: Mapping[str, int]) -> None:
        """The peer has answered: it has the bars of these revisions (symbol → revision).

        What Redis can't take now is remembered and written with the next ``refresh``.
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
        # In another life of the store nothing is written, and the next refresh reads it again.
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
    """What is known of one peer as an older node (field → text), kept beside its ledger, under the
    lease named by ``fence``; raises as Ledger does."""

    def __init__(self, client: "redis.Redis", *, peer_id: str, fence: str) -> None:
        self._script = market_script(client, _SCRIPT)
        self._peer = {"peer": peer_id}
        self._fence = fence

    def read(self) -> tuple[dict[str, str], int]:
        """The notes, and Redis TIME in milliseconds."""
        now_ms, *pairs = _run(self._script, "notes", self._fence, self._peer)
        texts = [text.decode() for text in pairs]
        return dict(zip(texts[::2], texts[1::2], strict=True)), now_ms

    def write(self, fields: Mapping[str, str | None]) -> None:
        """Write these fields; None deletes one."""
        if fields:
            pairs = [text or "" for pair in fields.items() for text in pair]
            _run(self._script, "note", self._fence, self._peer, pairs)


def delete_others(client: "redis.Redis", *, fence: str, peer_ids: Iterable[str]) -> int:
    """Delete the ledgers of all peers but these, and return how many; raises as Ledger does."""
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
