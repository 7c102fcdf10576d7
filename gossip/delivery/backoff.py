"""Backoff decides what a peer's response means, and when and in which form to send to it again.

The module is pure logic: it takes responses and times, and gossip.delivery.connection sends. No
retry library is used: urllib3's Retry sleeps inside the request and then sends the same body again,
while a peer's backlog is known only when it is sent. A circuit breaker is no more than a count.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from tickers.retry_after import seconds_asked


class ResponseMeaning(Enum):
    TAKEN = auto()
    REFUSED = auto()  # the bars are refused for what they say; they go again when they change
    SINGLE_BARS = auto()  # the list as such is refused: this peer takes single bars
    BUSY = auto()  # the peer asks us to wait; nothing is wrong
    FAILED = auto()  # the request failed and is made again
    STOPPED = auto()  # the peer wants nothing from this node; it is asked again after a while


_OF_ONE_BAR = {
    400: ResponseMeaning.REFUSED,
    422: ResponseMeaning.REFUSED,
    408: ResponseMeaning.FAILED,
    425: ResponseMeaning.FAILED,
    429: ResponseMeaning.BUSY,
}
_OF_A_LIST = _OF_ONE_BAR | dict.fromkeys((400, 413, 415, 422), ResponseMeaning.SINGLE_BARS)


def meaning_of(status: int | None, *, bars: int, judged: bool = False) -> ResponseMeaning:
    """Return what the response to a request of ``bars`` bars means.

    ``status`` is None where there was no response. ``judged``: the peer refused every bar of a list
    for what it says, so the list as such is fine. Redirects aren't followed, as the token would go
    wherever they lead.
    """
    if status is None or 500 <= status <= 599:
        return ResponseMeaning.FAILED
    if 200 <= status <= 299:
        return ResponseMeaning.TAKEN
    table = _OF_A_LIST if bars > 1 and not judged else _OF_ONE_BAR
    return table.get(status, ResponseMeaning.STOPPED)


def seconds_to_wait(value: str | None, *, wall_time: Callable[[], float] = time.time) -> float:
    """Return the seconds that a Retry-After header asks for, at most ``LONGEST_RETRY_AFTER``.

    Without a header that can be read it is 0.
    """
    return min(seconds_asked(value, wall_time=wall_time) or 0.0, LONGEST_RETRY_AFTER)


# --- When to send again ---------------------------------------------------------------------------

LONGEST_RETRY_AFTER = 300.0  # seconds
SINGLE_BARS_FOR = 600.0  # seconds until a peer that refused a list is offered one again

# A peer that comes back gets its backlog within 5 s: a pause after a failure and a connect timeout
# together take no longer.
FIRST_BACKOFF = 0.25  # seconds; doubled with each failure
LONGEST_BACKOFF = 2.0
BREAKS_AFTER = 3  # failures in a row
BREAK = 2.5  # seconds between the tries while the circuit is broken

LONGEST_BUSY_BACKOFF = 10.0  # seconds
LONGEST_PACE = 20.0  # seconds between two requests that are taken
FASTER = 0.95  # the factor of the pace after a request that wasn't too early

# Seconds until a peer that stopped us is tried again. A changed token is noticed soon; a ban lasts
# hours, and further tries don't prolong it.
STOPPED_FOR = {403: 300.0}
STOPPED_FOR_OTHERS = 60.0


class CircuitState(Enum):
    REACHABLE = auto()
    FAILING = auto()  # the circuit is broken
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage is a time in which a peer took nothing.

    It goes from the response that opened the peer's circuit to the last one that didn't close it,
    in seconds of the monotonic clock. ``stopped_by`` is the status with which the peer refuses this
    node; None: the peer fails.
    """

    began: float
    seen_until: float
    stopped_by: int | None


class Backoff:
    """The backoff of one peer, learned from its responses.

    Times are seconds of one monotonic clock. ``circuit`` and ``outage`` (None while the circuit is
    closed) may be read by other threads. Only a response that takes or refuses what was sent closes
    the circuit; a 429 between failures doesn't. ``jitter(most)`` draws evenly from 0 to ``most``
    (full jitter).
    """

    def __init__(self, *, jitter: Callable[[float], float]) -> None:
        self._jitter = jitter
        self.circuit = CircuitState.REACHABLE
        self.outage: Outage | None = None
        self.not_before = float("-inf")
        self._failures = 0
        self._single_bars_until = float("-inf")
        self._busy = 0
        self._pace = 0.0
        self._taken_at = float("-inf")

    def takes_lists(self, now: float) -> bool:
        return now >= self._single_bars_until

    def record(
        self, answer: ResponseMeaning, *, status: int | None, retry_after: float, now: float
    ) -> None:
        """Learn from a response; ``retry_after`` is in seconds (0: not said)."""
        if answer is ResponseMeaning.FAILED:
            self._fail(now)
        elif answer is ResponseMeaning.STOPPED:
            self.not_before = now + STOPPED_FOR.get(status or 0, STOPPED_FOR_OTHERS)
            self._open(CircuitState.STOPPED, now, stopped_by=status)
        elif answer is ResponseMeaning.BUSY:
            self._wait_while_busy(now)
        else:
            self.circuit, self.outage, self._failures = CircuitState.REACHABLE, None, 0
            if answer is ResponseMeaning.SINGLE_BARS:
                self._single_bars_until = now + SINGLE_BARS_FOR
            else:
                self._keep_pace(now)
        if self.outage:
            self.outage = replace(self.outage, seen_until=now)
        self.not_before = max(self.not_before, now + retry_after)

    def _fail(self, now: float) -> None:
        self._failures += 1
        if self._failures >= BREAKS_AFTER:
            self.not_before = now + BREAK
            self._open(CircuitState.FAILING, now, stopped_by=None)
        else:
            self.not_before = now + self._backoff(self._failures, LONGEST_BACKOFF)

    def _open(self, circuit: CircuitState, now: float, *, stopped_by: int | None) -> None:
        began = self.outage.began if self.outage else now
        self.circuit, self.outage = circuit, Outage(began, now, stopped_by)

    def _wait_while_busy(self, now: float) -> None:
        self._busy += 1
        pause = self._backoff(self._busy, LONGEST_BUSY_BACKOFF)
        if self.circuit is CircuitState.FAILING:
            pause = max(pause, BREAK)
        self.not_before = now + pause

    def _backoff(self, count: int, longest: float) -> float:
        return self._jitter(min(longest, FIRST_BACKOFF * 2.0 ** min(count - 1, 30)))

    def _keep_pace(self, now: float) -> None:
        """Learn the pace of a peer that lets a request through only every so often.

        Existing Rust nodes take one every 10 s. The pace is the time between two requests that were
        taken, and gets 5 % shorter with each while the peer is never busy.
        """
        pause = now - self._taken_at
        if not self._busy:
            self._pace = self._pace * FASTER if self._pace > FIRST_BACKOFF else 0.0
        elif pause <= LONGEST_PACE:
            self._pace = pause
        self._busy, self._taken_at = 0, now
        self.not_before = now + self._pace
