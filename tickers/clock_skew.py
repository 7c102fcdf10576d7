"""The clock skew: how far this node's clock is from other servers' clocks, by their Date headers.

A Date (RFC 9110, 6.6.1) is in whole seconds and has travelled, so the skew is exact to a second or
two. That is enough for what depends on the wall clock: which day it is, and whether the exchange is
open. Ages, windows and leases don't use the wall clock.
"""

import datetime as dt
import email.utils
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

logger = logging.getLogger(__name__)

TOLERANCE = 30.0  # seconds
OBSERVATIONS = 5  # the last ones of each source count
FRESH = 600.0  # seconds; an older observation says nothing about the clock now


class SourceKind(StrEnum):
    """The kind of server whose clock this node's is compared with."""

    UPSTREAM = "upstream"
    CORE_NETWORK = "core_network"
    INTERNAL_PEERS = "internal_peers"
    PUBLIC_PEERS = "public_peers"


class ClockSkew:
    """The skew by kind of source, from the dates of answers; safe for threads.

    A kind's skew is the median of its sources', and a source's the median of its last answers: one
    peer with a wrong clock, or one late answer, is not this node's fault. ``wall_time`` is this
    node's clock, in epoch seconds.
    """

    def __init__(
        self,
        *,
        wall_time: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_time = wall_time
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._observations: dict[SourceKind, dict[str, deque[tuple[float, float]]]] = {}
        self._wrong: set[SourceKind] = set()

    def observe(
        self, *, kind: SourceKind, source: str = "", date: str | None, age: str | None = None
    ) -> None:
        """Take the Date and Age headers of an answer that has just come; None: it has none.

        ``source`` distinguishes sources of one kind. A date that can't be read is ignored.
        """
        answered_at = _instant(date, age)
        if answered_at is None:
            return
        observation = (self._monotonic(), self._wall_time() - answered_at)
        with self._lock:
            sources = self._observations.setdefault(kind, {})
            sources.setdefault(source, deque(maxlen=OBSERVATIONS)).append(observation)
            skew = self._skews()[kind]
            wrong = abs(skew) > TOLERANCE
            changed = wrong != (kind in self._wrong)
            (self._wrong.add if wrong else self._wrong.discard)(kind)
        if changed and wrong:
            logger.error("%s", complaint(kind, skew))
        elif changed:
            logger.info("this node's clock agrees with that of %s again", _NAMES[kind])

    def seconds(self) -> dict[str, float]:
        """Return kind → seconds that this node's clock is ahead of it (negative: behind)."""
        with self._lock:
            return {kind.value: round(skew, 1) for kind, skew in self._skews().items()}

    def _skews(self) -> dict[SourceKind, float]:
        since = self._monotonic() - FRESH
        fresh = {
            kind: [
                [skew for at, skew in observations if at >= since]
                for observations in sources.values()
            ]
            for kind, sources in self._observations.items()
        }
        return {
            kind: _median([_median(skews) for skews in sources if skews])
            for kind, sources in fresh.items()
            if any(sources)
        }


_NAMES = {
    SourceKind.UPSTREAM: "the upstream",
    SourceKind.CORE_NETWORK: "the core network",
    SourceKind.INTERNAL_PEERS: "the internal peers",
    SourceKind.PUBLIC_PEERS: "the public peers",
}


def complaint(kind: SourceKind, seconds: float) -> str:
    """Return a line for the operator about a skew of more than ``TOLERANCE``."""
    direction = "ahead of" if seconds > 0 else "behind"
    return (
        f"this node's clock is {abs(seconds):.0f} s {direction} that of {_NAMES[kind]}: "
        "check its time synchronisation (NTP)"
    )


def complaints(seconds: Mapping[str, float]) -> list[str]:
    """Return a line for each kind of ``ClockSkew.seconds`` beyond ``TOLERANCE``."""
    return [
        complaint(SourceKind(kind), skew) for kind, skew in seconds.items() if abs(skew) > TOLERANCE
    ]


def _median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values the middle one nearer to 0, since half of the
    sources prove nothing."""
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    return min(ordered[middle - 1], ordered[middle], key=abs)


def _instant(date: str | None, age: str | None) -> float | None:
    """Return when an answer was sent, in epoch seconds: its Date plus its Age in a cache
    (RFC 9111, 5.1); None if the Date can't be read."""
    try:
        moment = email.utils.parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):
        return None
    cached = (age or "").strip()
    seconds = int(cached[:9]) if cached.isascii() and cached.isdigit() else 0
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() + seconds
