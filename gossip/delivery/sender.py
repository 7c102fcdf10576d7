"""Delivery to one peer, in a thread of its own: looks at what the peer lacks, sends what is due,
notes in the ledger what was taken, and waits to be woken. Once an hour it looks at what an older
node serves.

A bar counts as taken when the peer has answered, so each arrives at least once; merge makes repeats
harmless. It ends with its lease, and never makes anybody wait: not another peer, not the worker.
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

LOOK_AFTER = 60.0  # seconds: the longest time without a look at the market clock and the lease
STORE_PAUSE = 1.0  # seconds, when Redis doesn't answer


class PeerSender(threading.Thread):
    """Delivery to one peer under the lease named by ``fence``.

    ``wake``, ``end``, ``cut``, ``circuit``, ``outage`` and ``older`` are for other threads.
    ``trust_window`` and ``answer_within`` in seconds.
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
        """Leave as soon as nothing more can be sent without waiting."""
        self._ending.set()
        self._awake.set()

    def cut(self) -> None:
        """Leave now, whatever the peer is doing."""
        self._ended = True
        self.end()
        self._connection.cut()

    def run(self) -> None:
        try:
            while not self._ended:
                # Asked before the look: what came before the end is still seen.
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
        """One look and at most one request; returns when the next turn is due."""
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
        """Send what is due; returns when there may be more, if nothing changes until then."""
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
        """See what an older node serves, if its hour has come; whether that was seen."""
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
        answer = self._connection.post(body_of([lack.json for lack in batch]))
        if answer.status is None and self._ended:
            return  # we hung up, not the peer
        settled = self._responses.handle(answer, bars=len(batch), lacked=lacked)
        taken = answer.status is not None and 200 <= answer.status <= 299
        if taken:
            self._watch.learn(is_plain_ok=answer.is_plain_ok)
        if settled:
            self._note(batch, taken=taken)
            self._ledger.take({lack.symbol: lack.revision for lack in batch})

    def _note(self, batch: Sequence[PendingBar], *, taken: bool) -> None:
        """What an older node has taken, or refused for what it says."""
        now = self._monotonic()
        for bar in batch:
            self._backlog.was_sent(bar)
            if self.older.is_older and taken:
                self.older.took(bar.json, now=now, settled=bar.settled)
            elif self.older.is_older:
                self.older.refused(bar.json)
