"""Delivery to all peers, while this worker leads: a thread for each, started, woken, stopped and
counted together.

It never slows fetching: the worker only wakes it. The way of a bar: ``lacks`` compares the store
with a peer's ``ledger``, ``peer_delivery`` posts it over the peer's ``connection``, ``answers``
hears what the peer makes of it, and the ledger notes that it was taken.
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

AWAY_AFTER = 300.0  # seconds without a usable answer after which a peer is away
BANNED = 403  # a public door's answer to a sender that it banned


def _full_jitter(most: float) -> float:
    return random.uniform(0, most)  # noqa: S311 - spreads retries, guards nothing


class Delivery:
    """Delivery to all peers, while this worker leads.

    ``trust_window`` and ``answer_within`` in seconds. ``monotonic`` and ``jitter(most)`` are there
    to be replaced in tests.
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
        self._to_one = functools.partial(
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
        self._running: dict[str, PeerSender] = {}

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
            running = self._to_one(peer, fence=fence, counters=self._counters[peer_id])
            self._running[peer_id] = running
            running.start()

    def wake(self) -> None:
        """The store has changed. Costs nothing."""
        for running in self._running.values():
            running.wake()

    def stop(self, timeout: float) -> None:
        """End within ``timeout`` seconds: what peers lack and take at once is still sent; a peer
        that makes us wait is hung up on."""
        deadline = time.monotonic() + timeout
        for running in self._running.values():
            running.end()
        for running in self._running.values():
            running.join(max(0.0, deadline - timeout / 4 - time.monotonic()))
        for running in self._running.values():
            running.cut()
        for running in self._running.values():
            running.join(max(0.0, deadline - time.monotonic()))
        self._running = {}

    def status(self) -> dict[str, dict[str, int | str | None]]:
        """By kind of peer: how many are reachable, failing (also: refusing us) and idle (no lease);
        how many ban us, how many others have failed or refused us for ``AWAY_AFTER``, and how many
        are frozen and get settled bars only, each with the time since when (RFC 3339; None: none);
        how many answer as older nodes do; bars sent, refused, lacking and withheld, and requests
        that failed, since this process began."""
        return {kind.value: self._status_of(kind) for kind in PeerKind}

    def _status_of(self, kind: PeerKind) -> dict[str, int | str | None]:
        ids = [peer_id for peer_id, peer in self._peers.items() if peer.kind is kind]
        running = [self._running[i] for i in ids if i in self._running]
        alive = [thread for thread in running if thread.is_alive()]
        reachable = sum(thread.circuit is CircuitState.REACHABLE for thread in alive)
        outages = [outage for thread in alive if (outage := thread.outage)]
        bans = [outage for outage in outages if _is_ban(outage, kind)]
        away = [
            outage
            for outage in outages
            # By what was heard: a public peer isn't asked at night, and may be back by then.
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
    """An internal peer's 403 is about the token."""
    return kind is PeerKind.PUBLIC and outage.stopped_by == BANNED
