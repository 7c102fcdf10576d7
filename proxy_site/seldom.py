"""Log lines that anybody may cause are written seldom: a flood must not fill the disk."""

import time

_logged_at: dict[str, float] = {}  # what a line is about → monotonic seconds


def is_due(what: str, *, every: float) -> bool:
    """Tell whether to log a line about ``what``, a word of the code's own, and note that it is.

    It is due if the last one of this process is ``every`` seconds old.
    """
    now = time.monotonic()
    if now - _logged_at.get(what, -every) < every:
        return False
    _logged_at[what] = now
    return True


def forget() -> None:
    """Make every line due, as in a new process."""
    _logged_at.clear()
