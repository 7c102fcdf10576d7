"""How far this node's clock is from the clocks of those it talks to, by their Date headers.

A Date (RFC 9110, 6.6.1) is in whole seconds and has travelled, so the skew is good for a second or
two, which is enough: what depends on the wall clock (which day it is, whether the exchange is open)
is wrong long after that. Ages, windows and leases don't use the wall clock.
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
OBSERVATIONS = 5  # of each source that count: the last ones
FRESH = 600.0  # seconds: an older observation says nothing of the clock as it is now


class SourceKind(StrEnum):
    """Whose clock this node's is compared with."""

    UPSTREAM = "upstream"
    CORE_NETWORK = "core_network"
    INTERNAL_PEERS = "internal_peers"
    PUBLIC_PEERS = "public_peers"


class ClockSkew:
    """Hears the dates of answers; safe for threads.

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
        self._heard: dict[SourceKind, dict[str, deque[tuple[float, float]]]] = {}
        self._wrong: set[SourceKind] = set()

    def observe(
        self, *, kind: SourceKind, source: str = "", date: str | None, age: str | None = None
    ) -> None:
        """Take the Date and Age headers of an answer that has just come; None: it has none.

        ``source`` tells apart those of one kind. A date that can't be read teaches nothing.
        """
        answered_at = _instant(date, age)
        if answered_at is None:
            return
        heard = (self._monotonic(), self._wall_time() - answered_at)
        with self._lock:
            sources = self._heard.setdefault(kind, {})
            sources.setdefault(source, deque(maxlen=OBSERVATIONS)).append(heard)
            skew = self._skews()[kind]
            wrong = abs(skew) > TOLERANCE
            changed = wrong != (kind in self._wrong)
            (self._wrong.add if wrong else self._wrong.discard)(kind)
        if changed and wrong:
            logger.error("%s", complaint(kind, skew))
        elif changed:
            logger.info("this node's clock agrees with that of %s again", _NAMES[kind])

    def seconds(self) -> dict[str, float]:
        """Kind → seconds that this node's clock is ahead of it (negative: behind)."""
        with self._lock:
            return {kind.value: round(skew, 1) for kind, skew in self._skews().items()}

    def _skews(self) -> dict[SourceKind, float]:
        since = self._monotonic() - FRESH
        fresh = {
            kind: [[skew for at, skew in heard if at >= since] for heard in sources.values()]
            for kind, sources in self._heard.items()
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
    """What an operator is told about a skew of more than ``TOLERANCE``."""
    direction = "ahead of" if seconds > 0 else "behind"
    return (
        f"this node's clock is {abs(seconds):.0f} s {direction} that of {_NAMES[kind]}: "
        "check its time synchronisation (NTP)"
    )


def complaints(seconds: Mapping[str, float]) -> list[str]:
    """A line for each kind of ``ClockSkew.seconds`` beyond ``TOLERANCE``."""
    return [
        complaint(SourceKind(kind), skew) for kind, skew in seconds.items() if abs(skew) > TOLERANCE
    ]


def _median(values: Sequence[float]) -> float:
    """Of an even number the one nearer to no skew: half of the witnesses don't convict."""
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    return min(ordered[middle - 1], ordered[middle], key=abs)


def _instant(date: str | None, age: str | None) -> float | None:
    """The moment at which an answer was sent, in epoch seconds: its Date, and its Age in a cache
    (RFC 9111, 5.1) since."""
    try:
        moment = email.utils.parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):
        return None
    cached = (age or "").strip()
    seconds = int(cached[:9]) if cached.isascii() and cached.isdigit() else 0
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() + seconds
