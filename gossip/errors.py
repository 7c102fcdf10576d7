"""Refusals: the one exception by which a door refuses a request or a bar."""

import datetime as dt
from collections.abc import Mapping

from rest_framework import status as http
from rest_framework.exceptions import APIException

from gossip.wire import DETAILS, Code

BANNED = "Source IP is banned"


class Refusal(APIException):
    """A refusal with its HTTP status and code.

    ``detail`` is the text that the client reads, by default the code's own. ``retry_after`` is in
    seconds. ``facts`` are further fields of the answer, such as the values the bar was judged by.
    """

    def __init__(
        self,
        status: int,
        code: Code,
        detail: str = "",
        *,
        retry_after: int | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail or DETAILS[code], code.value)
        self.status_code = status
        self.code = code
        self.facts = dict(facts or {})
        if retry_after is not None:
            self.wait = retry_after  # DRF's exception handler sends it as Retry-After


def banned(until: dt.datetime | None, *, now: dt.datetime) -> Refusal:
    """Return the refusal of a banned sender; ``until`` None: a ban without end."""
    return Refusal(
        http.HTTP_403_FORBIDDEN,
        Code.BANNED,
        BANNED,
        retry_after=max(1, round((until - now).total_seconds())) if until else None,
        facts={"banned_until": _in_utc(until)},
    )


def _in_utc(moment: dt.datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
