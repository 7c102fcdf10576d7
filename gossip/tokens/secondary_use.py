"""Whether peers still send with the secondary token: until they don't, it can't be replaced.

Noted in the store, which every bar goes to anyway, and only while a rotation is under way: outside
one, peers send with the primary.
"""

import threading
import time

from tickers.store.store import ROOT, Store

NOTE_EVERY = 10.0  # seconds, in one process
REMEMBERED = 86_400  # seconds

_KEY = f"{ROOT}:secondary_token_used"
_lock = threading.Lock()
_noted_at = float("-inf")


def note(store: Store) -> None:
    """Bars came with the secondary token. Raises RedisError."""
    global _noted_at
    with _lock:
        if time.monotonic() - _noted_at < NOTE_EVERY:
            return
        _noted_at = time.monotonic()
    store.client.set(_KEY, "1", ex=REMEMBERED)


def seconds_since(store: Store) -> float | None:
    """Since bars last came with the secondary token, to ``NOTE_EVERY``; None: not for a day.

    Raises RedisError.
    """
    left = store.client.ttl(_KEY)
    return None if left < 0 else float(REMEMBERED - left)
