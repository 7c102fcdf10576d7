"""The cooldown of refused senders: a sender that got 403 or 429 is not read for 250 ms.

A refusal takes half a millisecond, and yet a flood of them kept all threads busy most of the time,
so that a peer's bars waited. After a 403 or 429 the requests of that actor (an IPv4 address, an
IPv6 /64) stay in their sockets for ``COOLDOWN`` seconds, which makes sixteen connections at full
speed some sixty requests a second. When ``MOST_WAITING`` connections of an actor wait, further ones
are closed. A proxy has no cooldown, since others call through it; deploy/nginx-site.conf has a
limit of its own.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from proxy_site.serving.timeouts import TimeoutWorker
from reputation.address import AddressError, actor_of, may_be_proxy

COOLDOWN = 0.25  # seconds
MOST_WAITING = 64
REFUSED = frozenset({403, 429})


class CooldownWorker(TimeoutWorker):
    trusted_proxies: Sequence[str] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cooldown_ends: dict[str, float] = {}  # actor → monotonic seconds
        self._waiting: deque[tuple[float, Any]] = deque()  # (until, connection), in this order
        self._waits: Counter[str] = Counter()  # actor → its waiting connections

    def answered(self, address: str, status: int, *, forwards: bool) -> None:
        """Begin a cooldown if the answer is a refusal and its sender no proxy.

        A thread of the pool calls this after each answer (gunicorn.conf.py). ``forwards``: the
        request had X-Forwarded-For.
        """
        if status in REFUSED and not may_be_proxy(
            peer=address, forwards=forwards, trusted_proxies=self.trusted_proxies
        ):
            self._cooldown_ends[_actor(address)] = time.monotonic() + COOLDOWN

    # --- In the main thread ---

    def enqueue_req(self, conn: Any) -> None:
        if not self._cooldown_ends:
            super().enqueue_req(conn)
            return
        actor, now = _actor_of(conn), time.monotonic()
        if self._cooldown_ends.get(actor, 0.0) <= now:
            super().enqueue_req(conn)
        elif self._waits[actor] >= MOST_WAITING:
            self.nr_conns -= 1
            conn.close()
        else:
            self._waits[actor] += 1
            self._waiting.append((now + COOLDOWN, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self._waiting:
            timeout = min(timeout, max(0.0, self._waiting[0][0] - time.monotonic()))
        super().wait_for_and_dispatch_events(timeout)
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, conn = self._waiting.popleft()
            self._waits -= Counter([_actor_of(conn)])
            super().enqueue_req(conn)
        if not self._waiting and self._cooldown_ends:
            for actor, until in tuple(self._cooldown_ends.items()):
                if until <= now:
                    self._cooldown_ends.pop(actor, None)


def _actor_of(conn: Any) -> str:
    return _actor(str(conn.client[0]))


@lru_cache(maxsize=4_096)
def _actor(address: str) -> str:
    try:
        return actor_of(address)
    except AddressError:
        return address
