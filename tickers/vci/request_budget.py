"""The request budget limits how often a node may ask the upstream.

It grants at most ``limit`` requests in any window of 61 s. (The broker's server counts a minute;
the extra second covers the time between a request's grant and its arrival.) Requests are evenly
paced: two are at least window / limit apart. They are counted twice, and the stricter count wins:

- in Redis, by the server's clock, across all workers of the node;
- in the process's own memory, by its monotonic clock, so that the limit holds while Redis is down
  or has lost its count. The first grant of an outage waits for one pace, because another worker
  may have been granted a request just before; with both paced evenly, the limit holds across them.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import redis

from tickers.store.scripts import Script

logger = logging.getLogger(__name__)

WINDOW = 61.0  # seconds

_TAKE = Path(__file__).with_name("lua") / "request_budget.lua"


class RequestBudget:
    """The budget of one upstream grants one request at a time; it is safe for threads.

    ``limit`` is requests in any ``window`` seconds; ``clock`` gives monotonic seconds. The grants
    are kept in Redis under ``key_prefix``, which all workers of the node must share, and for each
    ``source`` (an upstream's name; empty: the first) apart.
    """

    def __init__(
        self,
        server: redis.Redis,
        *,
        limit: int,
        source: str = "",
        key_prefix: str = "{market}:",
        window: float = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit < 1 or window <= 0:
            raise ValueError("limit and window must be above 0")
        self.limit = limit
        self.window = window
        # Rounded up, or limit + 1 grants would fit into a window.
        self.pace = math.ceil(window * 1e6 / limit) / 1e6
        self._key = f"{key_prefix}upstream_requests" + (f":{source}" if source else "")
        self._script = Script(server, _TAKE, key=self._key)
        self._clock = clock
        self._lock = threading.Lock()
        self._granted: deque[float] = deque(maxlen=limit)
        self._alone_since: float | None = None

    def take(self, *, stop: threading.Event) -> bool:
        """Wait for a grant and return True; return False as soon as ``stop`` is set."""
        while not stop.is_set():
            wait = self.try_take()
            if wait <= 0:
                return True
            stop.wait(wait)
        return False

    def try_take(self) -> float:
        """Return 0 when a request is granted, else the seconds after which to ask again."""
        with self._lock:
            wait = self._own_wait()
            if wait <= 0:
                wait = self._shared_wait()
            if wait <= 0:
                self._granted.append(self._clock())
            return max(wait, 0.0)

    def _own_wait(self) -> float:
        now = self._clock()
        wait = self._granted[-1] + self.pace - now if self._granted else 0.0
        if len(self._granted) == self.limit:
            wait = max(wait, self._granted[0] + self.window - now)
        return wait

    def _shared_wait(self) -> float:
        header = {
            "limit": self.limit,
            "window": math.ceil(self.window * 1e6),
            "pace": math.ceil(self.pace * 1e6),
        }
        try:
            wait = int(self._script(header)) / 1e6
        except redis.RedisError as error:
            return self._wait_alone(error)
        if self._alone_since is not None:
            logger.warning("Redis answers again: requests are counted across all workers")
            self._alone_since = None
        return wait

    def _wait_alone(self, error: redis.RedisError) -> float:
        now = self._clock()
        if self._alone_since is None:
            self._alone_since = now
            logger.warning(
                "Redis doesn't count upstream requests (%s); this process's own count goes on",
                type(error).__name__,
            )
        return self._alone_since + self.pace - now
