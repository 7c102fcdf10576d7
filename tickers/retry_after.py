"""The Retry-After header (RFC 9110, 10.2.3): whole seconds, or an HTTP date."""

import datetime as dt
import email.utils
import time
from collections.abc import Callable


def seconds_asked(value: str | None, *, wall_time: Callable[[], float] = time.time) -> float | None:
    """Return the seconds (0 or more) that the header asks for; None when it can't be read.

    Callers have limits of their own, since a server may ask for years.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Nine digits are 31 years, and int() refuses thousands of them.
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return max(0.0, moment.timestamp() - wall_time())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None  # email.utils raises all of these for one text or another
