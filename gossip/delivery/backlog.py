"""The backlog of one peer: the bars that it may have and hasn't taken, and when each may be sent.

Nothing is queued. The backlog is read from the store when it can be sent, so that a slow peer gets
the newest bar of each symbol and none of those between. Only CORE bars are sent: what came by
gossip or by following is never passed on, and overlays never travel.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from gossip.delivery.ledger import Changed, Ledger
from gossip.delivery.older import OlderNode, is_settled, settles_public
from gossip.delivery.peer import Peer, PeerKind
from tickers.bar import epoch_of
from tickers.market_clock import MarketClock
from tickers.store.records import Newest
from tickers.store.store import Store
from tickers.verdict import Authority

MAX_BARS = 500  # a request
MAX_BATCH_BYTES = 900_000  # bytes; doors take 1 MB

# Existing nodes close their public door when no trusted peer has spoken for a while.
SPEAK_AFTER = 60.0  # seconds
PUBLIC_PAUSE = 60.0  # seconds between two bars of one symbol to a public peer


# The revision of an older bar: when the peer takes it, its symbol stays in the backlog.
NOT_THE_NEWEST = 0


class PendingBar(NamedTuple):
    """A bar to send, with the revision of its symbol in ``changed``, which was read before the bar.

    ``settled``: it goes to an older node as the only bar of its day.
    """

    symbol: str
    revision: int
    json: bytes
    settled: bool = False


class Backlog:
    """The backlog belongs to the thread that delivers to the peer.

    gossip.delivery.older decides what an older node gets instead. ``withheld`` counts the bars that
    a public older node would count against us. Times are seconds of the ledger's monotonic clock,
    ``trust_window`` is in seconds. Methods that reach Redis raise what Ledger's do.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        store: Store,
        changed: Changed,
        clock: MarketClock,
        ledger: Ledger,
        older: OlderNode,
        trust_window: float,
    ) -> None:
        self._is_internal = peer.kind is PeerKind.INTERNAL
        self._store = store
        self._changed = changed
        self._clock = clock
        self._ledger = ledger
        self._older = older
        self._trust_window = trust_window
        self._lost: dict[str, PendingBar] = {}  # bars that a frozen peer had, and doesn't serve
        self.withheld = 0

    def may_be_sent(self) -> bool:
        """Return whether the peer may be sent anything at this hour."""
        return self._is_internal or self._clock.in_office_hours() or self._may_be_sent_settled()

    def _may_be_sent_settled(self) -> bool:
        return self._older.is_older and settles_public(self._clock)

    def now(self) -> list[PendingBar]:
        """Return the bars that the peer lacks and may have, the longest-waiting first."""
        changed = self._changed.at(self._ledger.refresh())
        symbols = self._ledger.lacking(changed)
        # Bars are read after `changed`, so that one may be newer than its revision, never older.
        newest = self._changed.newest(symbols)
        lacking = [
            (symbol, bar)
            for symbol in symbols
            if (bar := newest.get(symbol)) and bar.authority is Authority.CORE
        ]
        if self._is_internal:
            return self._for_internal(lacking, changed)
        return self._for_public(lacking, changed)

    def _for_internal(
        self, lacking: Sequence[tuple[str, Newest]], changed: Mapping[str, int]
    ) -> list[PendingBar]:
        if not self._older.is_frozen:
            self._lost.clear()
            return [PendingBar(symbol, changed[symbol], bar.json) for symbol, bar in lacking]
        since_fetch = self._store.seconds_since_fetch()
        pending = {
            symbol: PendingBar(symbol, changed[symbol], bar.json, settled=True)
            for symbol, bar in lacking
            if self._is_settled(bar, since_fetch)
        }
        return list({**self._lost, **pending}.values())

    def _for_public(
        self, lacking: Sequence[tuple[str, Newest]], changed: Mapping[str, int]
    ) -> list[PendingBar]:
        today = epoch_of(self._clock.trading_day())
        settled = not self._clock.in_office_hours()
        if settled:
            since_fetch = self._store.seconds_since_fetch()
            lacking = [
                (symbol, bar)
                for symbol, bar in lacking
                if self._older.lacks_settled(symbol, bar) and self._is_settled(bar, since_fetch)
            ]
        lacking = [(symbol, bar) for symbol, bar in lacking if bar.day == today]
        pending = [
            PendingBar(symbol, changed[symbol], bar.json, settled=settled)
            for symbol, bar in lacking
            if not self._older.counts_against_us(symbol, bar)
        ]
        self.withheld = len(lacking) - len(pending)
        return pending

    def _is_settled(self, bar: Newest, since_fetch: float | None) -> bool:
        now_ms = self._ledger.now_ms
        return is_settled(bar, clock=self._clock, now_ms=now_ms, since_fetch=since_fetch)

    def newest(self) -> Mapping[str, Newest]:
        """Return our newest bars, by symbol, to be compared with what the peer serves."""
        changed = self._changed.at(self._ledger.refresh())
        return self._changed.newest(changed)

    def note_lost(self, served: Collection[str]) -> None:
        """Note that a frozen peer serves only the symbols ``served``.

        It has lost the others, with a restart say, and gets their last settled bars again.
        """
        newest = self.newest()
        absent = [symbol for symbol in newest if symbol not in served]
        self._lost = {bar.symbol: bar for bar in self._last_settled(absent)}

    def was_sent(self, bar: PendingBar) -> None:
        self._lost.pop(bar.symbol, None)

    def _last_settled(self, symbols: Sequence[str]) -> list[PendingBar]:
        """Return each symbol's newest bar, or the one before while the newest isn't settled."""
        changed = self._store.changed()
        newest = self._store.newest(symbols)
        since_fetch = self._store.seconds_since_fetch()
        found = []
        for symbol, rows in self._store.series(symbols, last=2):
            bar = newest.get(symbol)
            if bar and symbol in changed and self._is_settled(bar, since_fetch):
                found.append(PendingBar(symbol, changed[symbol], bar.json, settled=True))
            elif len(rows) == 2:
                found.append(PendingBar(symbol, NOT_THE_NEWEST, rows[0][1], settled=True))
        return found

    def batch(self, lacking: Sequence[PendingBar], now: float, *, lists: bool) -> list[PendingBar]:
        """Return the bars of one request: as many as it may hold, or one without ``lists``."""
        most = MAX_BARS if lists else 1
        batch: list[PendingBar] = []
        size = 2
        for bar in lacking:
            if len(batch) == most:
                break
            if self._allowed_at(bar.symbol) > now:
                continue
            size += len(bar.json) + 1
            if size > MAX_BATCH_BYTES and batch:
                break
            batch.append(bar)
        return batch

    def again(self, now: float) -> list[PendingBar]:
        """Return the newest bar once more, for an internal peer that took nothing for 60 s.

        Nothing is returned while our own fetches have stopped: a bar would hold the peer's public
        door open on data that is out of date.
        """
        if now < self._speaks_at():
            return []
        fetched = self._store.seconds_since_fetch()
        if fetched is None or fetched > self._trust_window:
            return []
        changed = self._store.changed()
        newest = self._store.newest(changed)
        ours = [s for s in changed if s in newest and newest[s].authority is Authority.CORE]
        if not ours:
            return []
        symbol = max(ours, key=lambda symbol: changed[symbol])
        if self._older.is_frozen:
            return self._last_settled([symbol])
        return [PendingBar(symbol, changed[symbol], newest[symbol].json)]

    def next_due(self, lacking: Sequence[PendingBar], now: float) -> float:
        """Return when there is something to send if nothing changes until then; inf: never."""
        due = [self._allowed_at(bar.symbol) for bar in lacking]
        speaks_at = self._speaks_at()
        if speaks_at > now:
            due.append(speaks_at)
        return min(due, default=float("inf"))

    def _allowed_at(self, symbol: str) -> float:
        taken_at = self._ledger.taken_at(symbol)
        if self._is_internal or taken_at is None:
            return float("-inf")
        return taken_at + PUBLIC_PAUSE

    def _speaks_at(self) -> float:
        last = self._ledger.last_taken_at
        if not self._is_internal or last is None:
            return float("inf")
        return last + SPEAK_AFTER
