"""The response handler passes a peer's responses to its backoff, counts them, and logs changes.

There is a log line when the peer's circuit opens or closes, and one in ten minutes at most about
refused bars: a peer may answer as often as it likes, and the log must not grow with it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from gossip.delivery.backoff import Backoff, CircuitState, ResponseMeaning, meaning_of
from gossip.delivery.connection import PeerResponse
from gossip.delivery.peer import Peer, PeerKind
from tickers.clock_skew import ClockSkew, SourceKind

logger = logging.getLogger(__name__)

COMPLAIN_AFTER = 600.0  # seconds between two lines about bars that a peer refuses


@dataclass(slots=True)
class DeliveryCounters:
    """The counters of one peer since this process began."""

    sent: int = 0  # bars that the peer took
    refused: int = 0  # bars that the peer refused for what they say
    failures: int = 0  # requests without a usable response
    lacking: int = 0  # bars that the peer may have and hasn't taken
    withheld: int = 0  # bars that a public older node would count against us


class ResponseHandler:
    """The handler of one peer's responses, for the thread that delivers to it."""

    def __init__(
        self,
        peer: Peer,
        *,
        backoff: Backoff,
        counters: DeliveryCounters,
        clock_skew: ClockSkew,
        monotonic: Callable[[], float],
    ) -> None:
        self._peer = peer
        self._backoff = backoff
        self._counters = counters
        self._clock_skew = clock_skew
        self._monotonic = monotonic
        self._next_complaint = float("-inf")

    def handle(self, answer: PeerResponse, *, bars: int, lacked: int) -> bool:
        """Handle the response to a request of ``bars`` bars, from a backlog of ``lacked``.

        Returns whether the bars are done with: they were taken, or refused for what they say, and
        none is sent again until it changes.
        """
        internal = self._peer.kind is PeerKind.INTERNAL
        kind = SourceKind.INTERNAL_PEERS if internal else SourceKind.PUBLIC_PEERS
        self._clock_skew.observe(kind=kind, source=self._peer.id, date=answer.date)
        said = meaning_of(answer.status, bars=bars, judged=answer.judged)
        before = self._backoff.circuit
        self._backoff.record(
            said, status=answer.status, retry_after=answer.retry_after, now=self._monotonic()
        )
        self._count(said, bars)
        if self._backoff.circuit is not before:
            self._log_circuit(answer, lacked=lacked)
        elif said is ResponseMeaning.REFUSED:
            self._complain(answer)
        return said in (ResponseMeaning.TAKEN, ResponseMeaning.REFUSED)

    def _count(self, said: ResponseMeaning, bars: int) -> None:
        if said is ResponseMeaning.TAKEN:
            self._counters.sent += bars
        elif said is ResponseMeaning.REFUSED:
            self._counters.refused += bars
        elif said in (ResponseMeaning.FAILED, ResponseMeaning.STOPPED):
            self._counters.failures += 1

    def _log_circuit(self, answer: PeerResponse, *, lacked: int) -> None:
        name, circuit = self._peer.name, self._backoff.circuit
        if circuit is CircuitState.REACHABLE:
            logger.info("peer %s is back; it lacked %d bars", name, lacked)
        elif circuit is CircuitState.FAILING:
            logger.warning("peer %s is unreachable (%s); its bars wait", name, answer.reason)
        else:
            logger.warning(
                "peer %s wants nothing from us (%s): %s",
                name,
                answer.reason,
                _remedy(answer.status, self._peer.kind),
            )

    def _complain(self, answer: PeerResponse) -> None:
        now = self._monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAIN_AFTER
            logger.warning(
                "peer %s refuses bars (%s); they are dropped", self._peer.name, answer.reason
            )


def _remedy(status: int | None, kind: PeerKind) -> str:
    if kind is PeerKind.PUBLIC:
        if status == 403:
            return "it may have banned this node; ask its operator"
        return "check PUBLIC_PEER_URLS"
    if status in (401, 403):
        return "check that it accepts this node's PRIMARY_TOKEN"
    return "check INTERNAL_PEER_URLS"
