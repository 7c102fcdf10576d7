"""Housekeeping: every two seconds the leading worker applies bans to the market, moves counts into
SQL, and settles claims and appeals.

Each duty may run twice, and in two workers at once, without harm. A duty that fails, for whatever
reason, is logged once and tried again with the next turn, and the other ones are done all the same:
a ban must reach the market although counting has a bug.
"""

import logging
import threading
from collections.abc import Callable, Mapping

import redis
from django.db import Error, close_old_connections, connections

from gossip.doors.claims import Claims
from proxy_site import reasons
from reputation import actors
from tickers.market_clock import MarketClock
from tickers.store.records import date_of
from tickers.store.store import Store
from tickers.universe import Universe
from tickers.verdict import Authority

logger = logging.getLogger(__name__)

TURN = 2.0  # seconds; a count is in SQL after five at most

# Trading days without a bar after which a symbol that only peers know leaves.
SILENT_DAYS = 5

Duty = Callable[[], object]


class Housekeeping:
    """A thread that does ``duties`` (by name) between ``start`` and ``stop``."""

    def __init__(self, duties: Mapping[str, Duty], *, turn: float = TURN) -> None:
        self._duties = dict(duties)
        self._turn = turn
        self._failing: dict[str, set[type[Exception]]] = {}  # duty → the errors that were logged
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def failing(self) -> list[str]:
        """The duties that failed when they were last done."""
        return sorted(self._failing)

    def start(self) -> None:
        self.stop(timeout=0)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="housekeeping", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Do the duties once more; waits for the thread's end for ``timeout`` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.wait(self._turn):
                self._do("closing old connections", close_old_connections)
                self.run_once()
            self.run_once()
        finally:
            connections.close_all()

    def run_once(self) -> None:
        for name, duty in self._duties.items():
            self._do(name, duty)

    def _do(self, name: str, duty: Duty) -> None:
        try:
            duty()
        except (redis.RedisError, Error) as error:
            if self._is_new(name, error):
                logger.error("%s fails, and is tried again (%s)", name, reasons.of(error) or error)
        except Exception as error:
            if self._is_new(name, error):
                logger.exception("%s fails by a fault of its own, and is tried again", name)
        else:
            if self._failing.pop(name, None):
                logger.info("%s works again", name)

    def _is_new(self, name: str, error: Exception) -> bool:
        """Tell whether this kind of error wasn't logged yet since the duty last worked."""
        logged = self._failing.setdefault(name, set())
        is_new = type(error) not in logged
        logged.add(type(error))
        return is_new


def withdraw_bars_of_banned(store: Store) -> None:
    """Withdraw the overlays of banned actors; reputation itself knows nothing of the market."""
    addresses = store.public_actors()
    banned = actors.banned_among(addresses=addresses) if addresses else set()
    if banned:
        ended = store.withdraw_actors(sorted(banned))
        logger.info("ended %d public bars of %d banned actors", ended, len(banned))


def forget_gossiped(store: Store, universe: Universe, clock: MarketClock) -> None:
    """A symbol that only peers know, and of which no bar came for five trading days, leaves the
    market: invented ones must not fill it for good."""
    unlisted = [symbol for symbol in store.symbols() if symbol not in universe]
    today = clock.trading_day()
    for symbol, newest in (store.newest(unlisted) if unlisted else {}).items():
        silent = clock.calendar.trading_days_between(date_of(newest.day), today)
        if (
            newest.authority is Authority.INTERNAL
            and silent >= SILENT_DAYS
            and store.forget(symbol)
        ):
            logger.info(
                "forgot %s: only peers know it, and no bar came for %d trading days", symbol, silent
            )


class ContradictedPeers:
    """Says in the log whose bars were contradicted; /health names them for a day."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._said: dict[str, int] = {}

    def tell(self) -> None:
        now = {
            peer: counts.get("contradicted", 0)
            for peer, counts in self._store.counted_against().items()
        }
        for peer, times in now.items():
            if times > self._said.get(peer, 0):
                logger.warning("peer %s was contradicted %d times in the last 24 h", peer, times)
        self._said = now


def settle_claims(claims: Claims, *, lifetime: float) -> None:
    """Judge the open claims, and record for their actors what was confirmed and contradicted."""
    confirmed, contradicted, evidence = claims.settle(lifetime=lifetime)
    if confirmed or contradicted:
        actors.record_claims(confirmed=confirmed, contradicted=contradicted, evidence=evidence)
