"""The watch looks once an hour at what a peer serves that answers as an older node.

What it learns is kept in Redis beside the peer's ledger, so that it outlives every process.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping

import redis

from gossip.delivery.ledger import Notes
from gossip.delivery.older import LOOK_EVERY, OlderNode
from gossip.delivery.peer import Peer
from tickers import bounded_http, bounded_json
from tickers.bar import Bar, BarError, parse
from tickers.bounded_http import Limits, new_session
from tickers.bounded_json import JsonError, Shape
from tickers.core_answers import CoreAnswerError, read_market
from tickers.store.records import Newest

logger = logging.getLogger(__name__)

_LIMITS = Limits(
    connect_timeout=2, read_timeout=10, total_timeout=30, stop_grace=0, max_body=16_000_000
)


class Watch:
    """The watch keeps ``older`` up to date; it belongs to the thread that delivers to the peer.

    ``stop`` ends a look that is under way. Methods that reach Redis raise FencedError when another
    worker has the lease, and what redis raises.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        older: OlderNode,
        client: "redis.Redis",
        fence: str,
        stop: threading.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self._peer = peer
        self._older = older
        self._notes = Notes(client, peer_id=peer.id, fence=fence)
        self._stop = stop
        self._monotonic = monotonic
        self._session = new_session()
        self._is_restored = False

    def restore(self) -> None:
        """Read the notes of an earlier process, with the first call only."""
        if self._is_restored:
            return
        fields, now_ms = self._notes.read()
        looked_at = float("-inf")
        if "looked" in fields:
            looked_at = self._monotonic() - max(0.0, now_ms - int(fields["looked"])) / 1000
        self._older.restore(fields, looked_at=looked_at)
        self._is_restored = True

    def learn(self, *, is_plain_ok: bool) -> None:
        if self._older.learn(is_plain_ok=is_plain_ok):
            logger.info(
                "peer %s answers as %s",
                self._peer.name,
                "an older node" if is_plain_ok else "a node of our kind",
            )

    def save(self) -> None:
        """Write what was learned; what can't be written now is written with the next call."""
        self._notes.write(self._older.unsaved)
        self._older.unsaved.clear()

    def look(
        self, ours: Mapping[str, Newest], *, now_ms: int, trading: bool
    ) -> Collection[str] | None:
        """Look at what the peer serves, if that is due; return the symbols that it serves.

        None: it wasn't looked at, or its answer can't be used.
        """
        now = self._monotonic()
        if self._stop.is_set() or not self._older.should_be_looked_at(ours, now=now):
            return None
        self._older.looked_at = now
        self._older.unsaved["looked"] = str(now_ms)
        served = self._served()
        if served is None:
            return None
        was_frozen = self._older.is_frozen
        self._older.serves(served, ours, now=now, at=now_ms, trading=trading)
        if self._older.is_frozen and not was_frozen:
            logger.warning(
                "peer %s is frozen: it keeps the first bar of a day; settled bars only from now on",
                self._peer.name,
            )
        elif was_frozen and not self._older.is_frozen:
            logger.info("peer %s fetches by itself again; it gets every change", self._peer.name)
        return served

    def _served(self) -> dict[str, Bar | None] | None:
        """Return the last bar of each symbol that the peer serves, or None and log why not.

        A symbol's value is None where its last entry is no valid bar: older nodes keep whatever
        they are sent.
        """
        try:
            reply = bounded_http.ask(
                self._session,
                "GET",
                f"{self._peer.url.rstrip('/')}/tickers",
                limits=_LIMITS,
                stop=self._stop,
                examine=Shape().feed,
            )
            if reply.status == 200:
                body = bounded_json.build(reply.body)
                symbols = read_market(body).series
                return {symbol: _bar(body[symbol][-1]) for symbol in symbols if body[symbol]}
            reason = f"answers {reply.status}"
        except bounded_http.StoppedError:
            return None
        except (bounded_http.HttpError, CoreAnswerError, JsonError) as error:
            reason = str(error)
        logger.warning(
            "what peer %s serves can't be seen (it %s); again in %d s",
            self._peer.name,
            reason,
            LOOK_EVERY,
        )
        return None


def _bar(entry: object) -> Bar | None:
    try:
        return parse(entry)
    except BarError:
        return None
