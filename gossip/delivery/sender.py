"""The sender delivers to one peer, in a thread of its own.

It reads the peer's backlog, sends what is due, notes in the ledger what was taken, and waits to be
woken. Once an hour it looks at what an older node serves. A bar counts as taken when the peer has
answered, so each arrives at least once; merge makes repeats harmless. The thread ends with its
lease. Neither another peer nor the worker ever waits for it.
"""

import logging
import threading
from collections.abc import Callable, Sequence

import redis

from gossip.delivery.backlog import Backlog, PendingBar
from gossip.delivery.backoff import Backoff, CircuitState, Outage
from gossip.delivery.connection import Connection
from gossip.delivery.ledger import Changed, Ledger
from gossip.delivery.older import OlderNode
from gossip.delivery.peer import Peer
from gossip.delivery.responses import DeliveryCounters, ResponseHandler
from gossip.delivery.watch import Watch
from gossip.wire import body_of
from tickers.clock_skew import ClockSkew
from tickers.market_clock import MarketClock
from tickers.store.store import FencedError, Store

logger = logging.getLogger(__name__)

LOOK_AFTER = 60.0  # seconds after which the market clock and the lease are looked at again
STORE_PAUSE = 1.0  # seconds between two tries while Redis doesn't answer


class PeerSender(threading.Thread):
    """The thread that delivers to one peer under the lease named by ``fence``.

    ``wake``, ``end``, ``cut``, ``circuit``, ``outage`` and ``older`` are for other threads.
    ``trust_window`` and ``answer_within`` are in seconds.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        store: Store,
        changed: Changed,
        clock: MarketClock,
        fence: str,
        counters: DeliveryCounters,
        trust_window: float,
        answer_within: float,
        monotonic: Callable[[], float],
        jitter: Callable[[float], float],
        clock_skew: ClockSkew,
    ) -> None:
        super().__init__(name=f"delivery to {peer.name}", daemon=True)
        self._peer = peer
        self._counters = counters
        self._clock = clock
        self._monotonic = monotonic
        self._awake = threading.Event()
        self._ending = threading.Event()
        self.older = OlderNode(peer.kind)
        self._watch = Watch(
            peer,
            older=self.older,
            client=store.client,
            fence=fence,
            stop=self._ending,
            monotonic=monotonic,
        )
        self._ledger = Ledger(store.client, peer_id=peer.id, fence=fence, monotonic=monotonic)
        self._backlog = Backlog(
            peer,
            store=store,
            changed=changed,
            clock=clock,
            ledger=self._ledger,
            older=self.older,
            trust_window=trust_window,
        )
        self._connection = Connection(peer, answer_within=answer_within)
        self._backoff = Backoff(jitter=jitter)
        self._responses = ResponseHandler(
            peer,
            backoff=self._backoff,
            counters=counters,
            clock_skew=clock_skew,
            monotonic=monotonic,
        )
        self._ended = False
        self._store_failed = False

    @property
    def circuit(self) -> CircuitState:
        return self._backoff.circuit

    @property
    def outage(self) -> Outage | None:
        return self._backoff.outage

    def wake(self) -> None:
        self._awake.set()

    def end(self) -> None:
        """End the thread as soon as nothing more can be sent without waiting."""
        self._ending.set()
        self._awake.set()

    def cut(self) -> None:
        """End the thread now, whatever the peer is doing."""
        self._ended = True
        self.end()
        self._connection.cut()

    def run(self) -> None:
        try:
            while not self._ended:
                # Read before the turn, so that what changed before the end is still sent.
                ending = self._ending.is_set()
                due = self._turn()
                wait = due - self._monotonic()
                if wait > 0:
                    if ending:
                        return
                    self._awake.wait(wait)
                self._awake.clear()
        except FencedError:
            logger.info("delivery to %s ends: another worker leads", self._peer.name)
        finally:
            self._connection.close()

    def _turn(self) -> float:
        """Make at most one request; return when the next turn is due."""
        now = self._monotonic()
        try:
            return min(self._look(now), now + LOOK_AFTER)
        except redis.RedisError as error:
            if not self._store_failed:
                logger.warning(
                    "delivery to %s waits: the store fails (%s)",
                    self._peer.name,
                    type(error).__name__,
                )
            self._store_failed = True
            return now + STORE_PAUSE

    def _look(self, now: float) -> float:
        """Send what is due; return when there may be more if nothing changes until then."""
        self._watch.restore()
        self._watch.save()
        if not self._backlog.may_be_sent():
            self._counters.lacking = self._counters.withheld = 0
            return float("inf")
        lacking = self._backlog.now()
        self._store_failed = False
        self._counters.lacking, self._counters.withheld = len(lacking), self._backlog.withheld
        if now < self._backoff.not_before:
            return self._backoff.not_before
        if self._look_at_peer():
            lacking = self._backlog.now()
        lists = self._backoff.takes_lists(now)
        batch = self._backlog.batch(lacking, now, lists=lists) or self._backlog.again(now)
        if not batch:
            return self._backlog.next_due(lacking, now)
        self._send(batch, lacked=len(lacking))
        return self._monotonic()

    def _look_at_peer(self) -> bool:
        """Look at what an older node serves, if that is due; return whether it was seen."""
        if not self.older.is_due(now=self._monotonic()):
            return False
        trading = self._clock.exchange_trades()
        served = self._watch.look(
            self._backlog.newest(), now_ms=self._ledger.now_ms, trading=trading
        )
        if served is not None and self.older.is_frozen:
            self._backlog.note_lost(served)
        self._watch.save()
        return served is not None

    def _send(self, batch: Sequence[PendingBar], *, lacked: int) -> None:
        answer = self._connection.post(body_of([bar.json for bar in batch]))
        if answer.status is None and self._ended:
            return  # the connection was cut by us, not by the peer
        settled = self._responses.handle(answer, bars=len(batch), lacked=lacked)
        taken = answer.status is not None and 200 <= answer.status <= 299
        if taken:
            self._watch.learn(is_plain_ok=answer.is_plain_ok)
        if settled:
            self._note(batch, taken=taken)
            self._ledger.take({bar.symbol: bar.revision for bar in batch})

    def _note(self, batch: Sequence[PendingBar], *, taken: bool) -> None:
        """Note what an older node has taken, or refused for what it says."""
        now = self._monotonic()
        for bar in batch:
            self._backlog.was_sent(bar)
            if self.older.is_older and taken:
                self.older.took(bar.json, now=now, settled=bar.settled)
            elif self.older.is_older:
                self.older.refused(bar.json)
