"""Delivery: sends each peer the newest bars that it lacks, in a thread of its own.

Nothing is queued: what a peer lacks is read from the store when it can be sent. A bar counts as
taken when the peer has answered, so each arrives at least once; merge makes repeats harmless.
Delivery never slows fetching: the worker only wakes it. A node's token goes to internal peers only,
and never into a log.
"""

import contextlib
import http.client
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from gossip.ledger import Changed, Ledger, delete_others
from gossip.peer import (
    Manners,
    Meaning,
    Peer,
    PeerKind,
    Standing,
    meaning,
    seconds_to_wait,
)
from gossip.plausibility import Objection
from tickers.bar import epoch_of
from tickers.clock_skew import ClockSkew, Kind
from tickers.market_clock import MarketClock
from tickers.store import Authority, FencedError, Position, Store

__all__ = ["Delivery", "Peer", "PeerKind"]

logger = logging.getLogger(__name__)

MAX_BARS = 500  # a request
MAX_BODY = 900_000  # bytes; doors take 1 MB
MAX_ANSWER = 65_536  # bytes read of an answer's body

CONNECT_WITHIN = 2.0  # seconds
ANSWER_WITHIN = 10.0  # seconds, for the whole exchange

# Existing nodes close their public door when no trusted peer has spoken for a while.
SPEAK_AFTER = 60.0  # seconds
PUBLIC_PAUSE = 60.0  # seconds between two bars of one symbol to a public peer
LOOK_AFTER = 60.0  # seconds: the longest time without a look at the market clock and the lease
STORE_PAUSE = 1.0  # seconds, when Redis doesn't answer


def _full_jitter(most: float) -> float:
    return random.uniform(0, most)  # noqa: S311 - spreads retries, guards nothing


# --- The wire -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` None: no answer, and ``reason`` says why."""

    status: int | None
    reason: str
    retry_after: float = 0.0  # seconds
    judged: bool = False  # it is about what the bars say
    date: str | None = None  # its Date header


class Connection:
    """A connection to one peer, kept alive between requests.

    Plain http.client: requests and urllib3 bound the wait for each byte, not for the whole answer,
    and let no other thread end a request. It follows no redirect, keeps no cookie, and knows
    neither proxies nor ~/.netrc. ``cut`` may be called from any thread, the rest from one.
    """

    def __init__(self, peer: Peer, *, answer_within: float = ANSWER_WITHIN) -> None:
        self._path = peer.path
        self._headers = {"Content-Type": "application/json", "User-Agent": "aipriceaction-proxy"}
        if peer.token:
            self._headers["Authorization"] = f"Bearer {peer.token}"
        self._answer_within = answer_within
        self._http = _connection(peer)
        self._socket: socket.socket | None = None
        self._late = False
        self._closed = False

    def post(self, body: bytes) -> Answer:
        """Send, and read the answer within the time it has; never raises for what a peer does."""
        self._late = False
        limit = threading.Timer(self._answer_within, self._shut)
        limit.daemon = True
        limit.start()
        try:
            return self._read(self._send(body))
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self.close()
            return Answer(None, "no answer in time" if self._late else _reason(error))
        finally:
            limit.cancel()

    def cut(self) -> None:
        """End the request in hand, and every later one, at once."""
        self._closed = True
        self._shut()

    def close(self) -> None:
        self._http.close()
        self._socket = None

    def _shut(self) -> None:
        self._late = True
        for open_socket in (self._socket, self._http.sock):
            if open_socket is not None:
                # ssl's own shutdown would take the TLS state away from the thread that reads.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _send(self, body: bytes) -> http.client.HTTPResponse:
        was_open = self._is_open()
        try:
            return self._send_once(body)
        except (ConnectionError, ssl.SSLEOFError):
            if not was_open or self._late:
                raise
        # The peer had closed the idle connection, as servers do.
        self.close()
        return self._send_once(body)

    def _send_once(self, body: bytes) -> http.client.HTTPResponse:
        if not self._is_open():
            self._http.connect()
        self._socket = self._http.sock
        self._socket.settimeout(self._answer_within)
        if self._late or self._closed:
            raise TimeoutError
        # A peer may answer, and hang up, before it has read everything.
        with contextlib.suppress(BrokenPipeError):
            self._http.request("POST", self._path, body, self._headers)
        response = self._http.getresponse()
        if self._late:  # headers that were cut off look like complete ones
            raise TimeoutError
        return response

    def _is_open(self) -> bool:
        return self._http.sock is not None

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        """The status is the answer; of the body only so much is read as keeps the connection."""
        try:
            text = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException):
            text = b""
        if self._late or not response.isclosed():
            response.close()
            self.close()
        return Answer(
            response.status,
            f"it answers {response.status}",
            retry_after=seconds_to_wait(response.getheader("Retry-After")),
            judged=any(objection.value.encode() in text for objection in Objection),
            date=response.getheader("Date"),
        )


def _connection(peer: Peer) -> http.client.HTTPConnection:
    host, port = peer.parts.hostname or "", peer.parts.port
    if peer.parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=CONNECT_WITHIN)
    # The machine's own authorities (or SSL_CERT_FILE), and those that come with requests.
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return _TlsConnection(host, port, timeout=CONNECT_WITHIN, context=context)


class _TlsConnection(http.client.HTTPSConnection):
    """Shows its socket before the handshake, so that this can be cut too."""

    def __init__(self, *args: Any, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(*args, context=context, **options)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        sock = self._tls.wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = sock
        sock.do_handshake()


def _reason(error: Exception) -> str:
    """Why there was no answer, in our words: an error may quote what the peer sent."""
    return getattr(error, "strerror", None) or type(error).__name__


# --- One peer -------------------------------------------------------------------------------------


class Lack(NamedTuple):
    """A bar to send, and the revision of ``changed`` that was read before it."""

    symbol: str
    revision: int
    json: bytes


@dataclass(slots=True)
class Counters:
    """Of one peer, since this process began."""

    sent: int = 0  # bars that it took
    refused: int = 0  # bars that it refused for what they say
    failures: int = 0  # requests without a usable answer
    lacking: int = 0  # bars that it may have and hasn't taken


class PeerDelivery(threading.Thread):
    """Delivery to one peer under one lease."""

    def __init__(
        self,
        peer: Peer,
        *,
        store: Store,
        changed: Changed,
        clock: MarketClock,
        fence: str,
        counters: Counters,
        trust_window: float,
        answer_within: float,
        monotonic: Callable[[], float],
        jitter: Callable[[float], float],
        clock_skew: ClockSkew,
    ) -> None:
        super().__init__(name=f"delivery to {peer.name}", daemon=True)
        self.peer = peer
        self.manners = Manners(jitter=jitter)
        self._store = store
        self._changed = changed
        self._clock = clock
        self._counters = counters
        self._trust_window = trust_window
        self._monotonic = monotonic
        self._clock_skew = clock_skew
        self._ledger = Ledger(store.client, peer_id=peer.id, fence=fence, monotonic=monotonic)
        self._connection = Connection(peer, answer_within=answer_within)
        self._awake = threading.Event()
        self._ending = threading.Event()
        self._ended = False
        self._next_complaint = float("-inf")
        self._store_failed = False

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
            logger.info("delivery to %s ends: another worker leads", self.peer.name)
        finally:
            self._connection.close()

    def _turn(self) -> float:
        """One look and at most one request; returns when the next turn is due."""
        now = self._monotonic()
        if not self._may_speak():
            self._counters.lacking = 0
            return now + LOOK_AFTER
        try:
            lacking = self._lacking(self._ledger.refresh())
            self._store_failed = False
            self._counters.lacking = len(lacking)
            if now < self.manners.not_before:
                return min(self.manners.not_before, now + LOOK_AFTER)
            batch = self._batch(lacking, now) or self._again(now)
            if not batch:
                return self._next_due(lacking, now)
            self._send(batch, lacked=len(lacking))
        except redis.RedisError as error:
            if not self._store_failed:
                logger.warning(
                    "delivery to %s waits: the store fails (%s)",
                    self.peer.name,
                    type(error).__name__,
                )
            self._store_failed = True
            return now + STORE_PAUSE
        return self._monotonic()

    def _may_speak(self) -> bool:
        return self.peer.kind is PeerKind.INTERNAL or self._clock.in_office_hours()

    # --- What to send -------------------------------------------------------------------------

    def _lacking(self, position: Position) -> list[Lack]:
        """What the peer lacks and may have, the longest-waiting first."""
        changed = self._changed.at(position)
        symbols = self._ledger.lacking(changed)
        # Read after `changed`: a bar may be newer than the revision it is noted under, never older.
        newest = self._store.newest(symbols)
        today = epoch_of(self._clock.trading_day())
        return [
            Lack(symbol, changed[symbol], bar.json)
            for symbol in symbols
            if (bar := newest.get(symbol))
            and bar.authority is Authority.CORE  # what came by gossip isn't passed on
            and (self.peer.kind is PeerKind.INTERNAL or bar.day == today)
        ]

    def _batch(self, lacking: Sequence[Lack], now: float) -> list[Lack]:
        """What to send in one request: a list, as long as a request may be, or a single bar."""
        most = MAX_BARS if self.manners.takes_lists(now) else 1
        batch: list[Lack] = []
        size = 2
        for lack in lacking:
            if len(batch) == most:
                break
            if self._allowed_at(lack.symbol) > now:
                continue
            size += len(lack.json) + 1
            if size > MAX_BODY and batch:
                break
            batch.append(lack)
        return batch

    def _allowed_at(self, symbol: str) -> float:
        taken_at = self._ledger.taken_at(symbol)
        if self.peer.kind is PeerKind.INTERNAL or taken_at is None:
            return float("-inf")
        return taken_at + PUBLIC_PAUSE

    def _again(self, now: float) -> list[Lack]:
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
        return [Lack(symbol, changed[symbol], newest[symbol].json)]

    def _speaks_at(self) -> float:
        last = self._ledger.last_taken_at
        if self.peer.kind is PeerKind.PUBLIC or last is None:
            return float("inf")
        return last + SPEAK_AFTER

    def _next_due(self, lacking: Sequence[Lack], now: float) -> float:
        due = [self._allowed_at(lack.symbol) for lack in lacking]
        due += [at for at in (self._speaks_at(),) if at > now]
        return min([*due, now + LOOK_AFTER])

    # --- Sending ------------------------------------------------------------------------------

    def _send(self, batch: Sequence[Lack], *, lacked: int) -> None:
        answer = self._connection.post(body_of([lack.json for lack in batch]))
        if answer.status is None and self._ended:
            return  # we hung up, not the peer
        internal = self.peer.kind is PeerKind.INTERNAL
        kind = Kind.INTERNAL_PEERS if internal else Kind.PUBLIC_PEERS
        self._clock_skew.hear(kind=kind, source=self.peer.id, date=answer.date)
        said = meaning(answer.status, bars=len(batch), judged=answer.judged)
        before = self.manners.standing
        self.manners.heard(
            said, status=answer.status, retry_after=answer.retry_after, now=self._monotonic()
        )
        self._count(said, len(batch))
        self._tell(said, answer, before=before, lacked=lacked)
        if said in (Meaning.TAKEN, Meaning.REFUSED):
            self._ledger.take({lack.symbol: lack.revision for lack in batch})

    def _count(self, said: Meaning, bars: int) -> None:
        if said is Meaning.TAKEN:
            self._counters.sent += bars
        elif said is Meaning.REFUSED:
            self._counters.refused += bars
        elif said in (Meaning.FAILED, Meaning.STOPPED):
            self._counters.failures += 1

    def _tell(self, said: Meaning, answer: Answer, *, before: Standing, lacked: int) -> None:
        """A line when the peer's standing changes, and now and then about what it refuses."""
        name, now = self.peer.name, self._monotonic()
        standing = self.manners.standing
        if standing is not before:
            if standing is Standing.REACHABLE:
                logger.info("peer %s is back; it lacked %d bars", name, lacked)
            elif standing is Standing.FAILING:
                logger.warning("peer %s is unreachable (%s); its bars wait", name, answer.reason)
            else:
                logger.warning(
                    "peer %s wants nothing from us (%s): %s",
                    name,
                    answer.reason,
                    _remedy(answer.status, self.peer.kind),
                )
        elif said is Meaning.REFUSED and now >= self._next_complaint:
            self._next_complaint = now + 600
            logger.warning("peer %s refuses bars (%s); they are dropped", name, answer.reason)


def body_of(bars: Sequence[bytes]) -> bytes:
    """The wire form of encoded bars: a single one as it is, several as a list."""
    return bars[0] if len(bars) == 1 else b"[" + b",".join(bars) + b"]"


def _remedy(status: int | None, kind: PeerKind) -> str:
    if kind is PeerKind.PUBLIC:
        if status == 403:
            return "it may have banned this node; ask its operator"
        return "check PUBLIC_PEER_URLS"
    if status in (401, 403):
        return "check that it accepts this node's PRIMARY_TOKEN"
    return "check INTERNAL_PEER_URLS"


# --- All peers ------------------------------------------------------------------------------------


class Delivery:
    """Delivery to all peers, while this worker leads.

    ``trust_window`` in seconds. ``monotonic`` and ``jitter(most)`` are there to be replaced in
    tests.
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
        self._peers = {peer.id: peer for peer in peers}
        self._counters = {peer_id: Counters() for peer_id in self._peers}
        self._options: dict[str, Any] = {
            "store": store,
            "changed": Changed(store),
            "clock": clock,
            "trust_window": trust_window,
            "answer_within": answer_within,
            "monotonic": monotonic,
            "jitter": jitter,
            "clock_skew": clock_skew or ClockSkew(),
        }
        self._running: dict[str, PeerDelivery] = {}

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
            running = PeerDelivery(
                peer, fence=fence, counters=self._counters[peer_id], **self._options
            )
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

    def status(self) -> dict[str, dict[str, int]]:
        """By kind of peer: how many are reachable, failing (also: refusing us) and idle (no lease);
        bars sent, refused and lacking, and requests that failed, since this process began."""
        return {kind.value: self._status_of(kind) for kind in PeerKind}

    def _status_of(self, kind: PeerKind) -> dict[str, int]:
        ids = [peer_id for peer_id, peer in self._peers.items() if peer.kind is kind]
        running = [self._running[i] for i in ids if i in self._running]
        alive = [thread for thread in running if thread.is_alive()]
        reachable = sum(thread.manners.standing is Standing.REACHABLE for thread in alive)
        counters = [self._counters[peer_id] for peer_id in ids]
        return {
            "peers": len(ids),
            "reachable": reachable,
            "failing": len(alive) - reachable,
            "idle": len(ids) - len(alive),
            "sent": sum(counter.sent for counter in counters),
            "refused": sum(counter.refused for counter in counters),
            "failures": sum(counter.failures for counter in counters),
            "lacking": sum(counter.lacking for counter in counters),
        }
