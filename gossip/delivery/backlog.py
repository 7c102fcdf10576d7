"""What a peer lacks: which bars it may have, which of them go into one request, and when.

Nothing is queued: it is read from the store when it can be sent, so that a slow peer gets the
newest bar of each symbol and nothing between. What came by gossip or by following is never passed
on, and overlays never travel.
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


NOT_THE_NEWEST = 0  # no revision: taking the bar leaves its symbol lacking


class PendingBar(NamedTuple):
    """A bar to send, and the revision of ``changed`` that was read before it; ``settled``: as the
    one of its day, to an older node."""

    symbol: str
    revision: int
    json: bytes
    settled: bool = False


class Backlog:
    """What one peer lacks, for the thread that delivers to it. What an older node gets instead is
    gossip.delivery.older's to say; ``withheld`` counts what a public one would hold against us.

    Times are seconds of the ledger's monotonic clock, ``trust_window`` in seconds. What reaches
    Redis raises as Ledger does.
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
        self._lost: dict[str, PendingBar] = {}  # that a frozen peer had, and doesn't serve
        self.withheld = 0

    def may_be_sent(self) -> bool:
        """Whether the peer may be sent anything at this hour."""
        return self._is_internal or self._clock.in_office_hours() or self._may_be_sent_settled()

    def _may_be_sent_settled(self) -> bool:
        return self._older.is_older and settles_public(self._clock)

    def now(self) -> list[PendingBar]:
        """What the peer lacks and may have, the longest-waiting first."""
        changed = self._changed.at(self._ledger.refresh())
        symbols = self._ledger.lacking(changed)
        # Read after `changed`: a bar may be newer than the revision it is noted under, never older.
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
        """Our newest bars, as of the last ``now``, for a look at what the peer serves."""
        changed = self._changed.at(self._ledger.refresh())
        return self._changed.newest(changed)

    def note_lost(self, served: Collection[str]) -> None:
        """A frozen peer serves only these symbols: it has begun anew, and gets their last settled
        bars again."""
        newest = self.newest()
        absent = [symbol for symbol in newest if symbol not in served]
        self._lost = {bar.symbol: bar for bar in self._last_settled(absent)}

    def was_sent(self, bar: PendingBar) -> None:
        self._lost.pop(bar.symbol, None)

    def _last_settled(self, symbols: Sequence[str]) -> list[PendingBar]:
        """The newest bar of each, or the one before while that one isn't settled."""
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
        """What to send in one request: a list, as long as a request may be, or a single bar."""
        most = MAX_BARS if lists else 1
        batch: list[PendingBar] = []
        size = 2
        for lack in lacking:
            if len(batch) == most:
                break
            if self._allowed_at(lack.symbol) > now:
                continue
            size += len(lack.json) + 1
            if size > MAX_BATCH_BYTES and batch:
                break
            batch.append(lack)
        return batch

    def again(self, now: float) -> list[PendingBar]:
        """The newest bar once more, for an internal peer that was sent nothing for a while.

        Not when our own fetches have stopped: that would hold the peer's public door open on data
        that is out of date.
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
        """When there is something to send, if nothing changes until then; may be infinite."""
        due = [self._allowed_at(lack.symbol) for lack in lacking]
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
