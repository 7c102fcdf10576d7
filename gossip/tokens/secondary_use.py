"""Use of the secondary token: while peers still send with it, it can't be replaced.

The use is noted in the store, which every bar goes to anyway. Outside a rotation nothing is noted,
since peers send with the primary. A note is of one token, by its fingerprint, so that a new
secondary isn't taken to be in use because of the one before it.
"""

import threading
import time

from django.views.decorators.debug import sensitive_variables

from gossip.tokens import bearer
from tickers.store.store import ROOT, Store

NOTE_EVERY = 10.0  # seconds between two notes of one process
REMEMBERED = 86_400  # seconds

_lock = threading.Lock()
_noted_at: dict[str, float] = {}  # key → monotonic seconds


@sensitive_variables("token")
def note(store: Store, *, token: str) -> None:
    """Note that bars came with ``token``, the secondary one. Raises RedisError."""
    key = _key(token)
    with _lock:
        if time.monotonic() - _noted_at.get(key, float("-inf")) < NOTE_EVERY:
            return
        _noted_at[key] = time.monotonic()
    store.client.set(key, "1", ex=REMEMBERED)


@sensitive_variables("token")
def seconds_since(store: Store, *, token: str) -> float | None:
    """Return the seconds since bars last came with ``token`` as the secondary one.

    They are exact to ``NOTE_EVERY``; None: no bars came for a day. Raises RedisError.
    """
    left = store.client.ttl(_key(token))
    return None if left < 0 else float(REMEMBERED - left)


@sensitive_variables("token")
def _key(token: str) -> str:
    return f"{ROOT}:secondary_token_used:{bearer.fingerprint(token)}"
