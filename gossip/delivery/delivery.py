"""Delivery sends what changed to all peers while this worker leads, in a thread for each peer.

Fetching never waits for it: the worker only wakes it. For each peer, ``backlog`` compares the store
with the peer's ``ledger``, ``sender`` posts the bars over the peer's ``connection``, ``responses``
handles the answer by the rules of ``backoff``, and the ledger notes what was taken. ``older`` and
``watch`` are about peers that run an older version.
"""

import datetime as dt
import functools
import logging
import random
import time
from collections.abc import Callable, Sequence

import redis

from gossip.delivery.backoff import CircuitState, Outage
from gossip.delivery.connection import ANSWER_WITHIN
from gossip.delivery.ledger import Changed, delete_others
from gossip.delivery.peer import Peer, PeerKind
from gossip.delivery.responses import DeliveryCounters
from gossip.delivery.sender import PeerSender
from tickers.clock_skew import ClockSkew
from tickers.market_clock import MarketClock
from tickers.store.store import FencedError, Store

logger = logging.getLogger(__name__)

AWAY_AFTER = 300.0  # seconds without a usable response after which a peer is away
BANNED = 403  # a public door's answer to a sender that it banned


def _full_jitter(most: float) -> float:
    return random.uniform(0, most)  # noqa: S311 - spreads retries, guards nothing


class Delivery:
    """The senders of all peers, started, woken, stopped and counted together.

    ``trust_window`` and ``answer_within`` are in seconds. ``monotonic`` and ``jitter(most)`` can be
    replaced in tests.
    """

    def __init__(
        self,
        *,
        store: Store,
        peers: Sequence[Peer],
        clock: MarketClock,
        trust_window: float = 300.0,
        answer_within: float = ANSWER_WITHIN,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[float], float] = _full_jitter,
        clock_skew: ClockSkew | None = None,
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._peers = {peer.id: peer for peer in peers}
        self._counters = {peer_id: DeliveryCounters() for peer_id in self._peers}
        self._new_sender = functools.partial(
            PeerSender,
            store=store,
            changed=Changed(store),
            clock=clock,
            trust_window=trust_window,
            answer_within=answer_within,
            monotonic=monotonic,
            jitter=jitter,
            clock_skew=clock_skew or ClockSkew(),
        )
        self._senders: dict[str, PeerSender] = {}

    def start(self, fence: str) -> None:
        """Deliver under this lease, until ``stop`` or until another worker leads."""
        self.stop(timeout=0)
        try:
            delete_others(self._store.client, fence=fence, peer_ids=self._peers)
        except FencedError:
            return
        except redis.RedisError as error:
            logger.warning(
                "ledgers of removed peers stay until the next start (%s)", type(error).__name__
            )
        for peer_id, peer in self._peers.items():
            sender = self._new_sender(peer, fence=fence, counters=self._counters[peer_id])
            self._senders[peer_id] = sender
            sender.start()

    def wake(self) -> None:
        """Tell the senders that the store has changed; this costs nothing."""
        for sender in self._senders.values():
            sender.wake()

    def stop(self, timeout: float) -> None:
        """End within ``timeout`` seconds.

        The backlog of peers that take it at once is still sent; the connection to a peer that makes
        us wait is cut.
        """
        deadline = time.monotonic() + timeout
        for sender in self._senders.values():
            sender.end()
        for sender in self._senders.values():
            sender.join(max(0.0, deadline - timeout / 4 - time.monotonic()))
        for sender in self._senders.values():
            sender.cut()
        for sender in self._senders.values():
            sender.join(max(0.0, deadline - time.monotonic()))
        self._senders = {}

    def status(self) -> dict[str, dict[str, int | str | None]]:
        """Return, by kind of peer, what /health shows of delivery.

        Peers are counted: reachable, failing (also those that refuse us), idle (no lease), those
        that ban us, others that have failed or refused us for ``AWAY_AFTER``, older nodes, and
        frozen ones, which get settled bars only. Bans, outages and frozen peers have the time of
        the first (RFC 3339; None: none). Bars sent, refused, lacking and withheld, and failed
        requests, are counted since this process began.
        """
        return {kind.value: self._status_of(kind) for kind in PeerKind}

    def _status_of(self, kind: PeerKind) -> dict[str, int | str | None]:
        ids = [peer_id for peer_id, peer in self._peers.items() if peer.kind is kind]
        senders = [self._senders[i] for i in ids if i in self._senders]
        alive = [thread for thread in senders if thread.is_alive()]
        reachable = sum(thread.circuit is CircuitState.REACHABLE for thread in alive)
        outages = [outage for thread in alive if (outage := thread.outage)]
        bans = [outage for outage in outages if _is_ban(outage, kind)]
        away = [
            outage
            for outage in outages
            # Only the time up to the last response counts: a public peer isn't asked at night.
            if outage not in bans and outage.seen_until - outage.began >= AWAY_AFTER
        ]
        older = [thread.older for thread in alive if thread.older.is_older]
        frozen = [since for one in older if (since := one.frozen_since) is not None]
        counters = [self._counters[peer_id] for peer_id in ids]
        return {
            "peers": len(ids),
            "reachable": reachable,
            "failing": len(alive) - reachable,
            "idle": len(ids) - len(alive),
            "banned_by": len(bans),
            "banned_since": self._since(bans),
            "away": len(away),
            "away_since": self._since(away),
            "older": len(older),
            "frozen": len(frozen),
            "frozen_since": _text_of(min(frozen)) if frozen else None,
            "sent": sum(counter.sent for counter in counters),
            "refused": sum(counter.refused for counter in counters),
            "failures": sum(counter.failures for counter in counters),
            "lacking": sum(counter.lacking for counter in counters),
            "withheld": sum(counter.withheld for counter in counters),
        }

    def _since(self, outages: Sequence[Outage]) -> str | None:
        if not outages:
            return None
        age = self._monotonic() - min(outage.began for outage in outages)
        began = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)
        return began.isoformat(timespec="seconds")


def _text_of(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="seconds")


def _is_ban(outage: Outage, kind: PeerKind) -> bool:
    """Return whether a public peer banned us; an internal peer's 403 is about the token."""
    return kind is PeerKind.PUBLIC and outage.stopped_by == BANNED
