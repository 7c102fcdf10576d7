"""The upstream choice decides which of several upstreams a cycle asks.

The upstream in use is asked until it brings nothing. Then it isn't asked for a while, longer each
time that it fails again, and the next one is asked in the same cycle. When an upstream earlier in
the list is back, the one in use stays, as the two may adjust histories differently; only another
node's door, which is second-hand, is left for it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tickers.cycle_report import CycleReport

logger = logging.getLogger(__name__)

FIRST_PAUSE = 30.0  # seconds, doubled each time that the upstream brings nothing again
LONGEST_PAUSE = 1_800.0

Progress = Callable[[int, int], None]


class Fetching(Protocol):
    """The fetch from one upstream, as tickers.core_fetch does it."""

    @property
    def source(self) -> str:
        """The upstream's host."""
        ...

    def counts(self) -> dict[str, Any]:
        """Return the counts of the last hour: of tickers.vci.upstream, and the batch size."""
        ...

    def cycle(self, fence: str, progress: Progress | None = None) -> CycleReport: ...

    def contact(self, fence: str) -> CycleReport: ...


@dataclass(slots=True)
class _Candidate:
    fetching: Fetching
    failures: int = 0  # cycles in a row that brought nothing
    until: float = 0.0  # monotonic seconds before which it isn't asked
    why: str = ""
    second_hand: bool = False

    def judge(self, cycle: CycleReport, now: float) -> None:
        if not cycle.brought_nothing:
            self.failures, self.until, self.why = 0, 0.0, ""
            self.second_hand = cycle.second_hand
            return
        self.failures += 1
        self.until = now + min(FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10), LONGEST_PAUSE)
        self.why = cycle.errors[0]


class UpstreamChoice:
    """The worker's source for several upstreams, the preferred one first.

    ``clock`` gives monotonic seconds.
    """

    def __init__(
        self, upstreams: Sequence[Fetching], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._candidates = [_Candidate(fetching) for fetching in upstreams]
        self._in_use: _Candidate | None = None
        self._clock = clock

    def cycle(self, fence: str, progress: Progress | None = None) -> CycleReport:
        return self._ask(lambda fetching: fetching.cycle(fence, progress))

    def contact(self, fence: str) -> CycleReport:
        return self._ask(lambda fetching: fetching.contact(fence))

    def _ask(self, ask: Callable[[Fetching], CycleReport]) -> CycleReport:
        """Return the report of the first upstream that brings something, or of the last asked."""
        requests, duration = 0, 0.0
        for candidate in self._order():
            cycle = ask(candidate.fetching)
            requests, duration = requests + cycle.requests, duration + cycle.duration
            candidate.judge(cycle, self._clock())
            if not cycle.brought_nothing:
                self._use(candidate)
                break
            logger.warning("the upstream at %s: %s", candidate.fetching.source, candidate.why)
        cycle.requests, cycle.duration = requests, duration
        cycle.upstream = self._status(None if cycle.brought_nothing else candidate)
        return cycle

    def _order(self) -> list[_Candidate]:
        """Return the upstreams to ask now, in order; if all must wait, the one due soonest."""
        now = self._clock()
        ready = [candidate for candidate in self._candidates if now >= candidate.until]
        if not ready:
            return [min(self._candidates, key=lambda candidate: candidate.until)]
        if self._in_use in ready and not self._in_use.second_hand:
            ready.sort(key=lambda candidate: candidate is not self._in_use)
        return ready

    def _use(self, candidate: _Candidate) -> None:
        if candidate is not self._in_use and len(self._candidates) > 1:
            logger.info("fetching from the upstream at %s", candidate.fetching.source)
        self._in_use = candidate

    def _status(self, in_use: _Candidate | None) -> dict[str, Any]:
        """Return the counts of all upstreams, which is in use, and why the others aren't."""
        now = self._clock()
        counts = [candidate.fetching.counts() for candidate in self._candidates]
        return {
            **{name: sum(each.get(name, 0) for each in counts) for name in ("requests", "retries")},
            **{
                name: dict(sum((Counter(each.get(name, {})) for each in counts), Counter()))
                for name in ("errors", "dropped")
            },
            "in_use": in_use.fetching.source if in_use else None,
            "sources": [
                {
                    "source": candidate.fetching.source,
                    "in_use": candidate is in_use,
                    "second_hand": candidate.second_hand,
                    "batch_size": count.get("batch_size"),
                    "left_for_secs": round(max(0.0, candidate.until - now)),
                    "why": candidate.why or ("" if candidate is in_use else "it isn't needed"),
                }
                for candidate, count in zip(self._candidates, counts, strict=True)
            ],
        }
