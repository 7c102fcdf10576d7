"""The wire form of gossip: a body is one bar or a list of bars, and a refusal has a code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tickers.bar import Bar, BarError, parse

MAX_LIST = 1_000  # bars


class Code(StrEnum):
    """The reason why a door refuses a request or a bar; a ``code`` never changes its name."""

    # The sender, or the moment.
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a code, no secret
    UNKNOWN_CLIENT = "unknown_client"
    RATE_LIMITED = "rate_limited"
    BANNED = "banned"
    UNTRUSTED_DATA = "untrusted_data"

    # The request as a whole.
    INVALID_LENGTH = "invalid_length"
    BODY_TOO_LARGE = "body_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_BODY = "invalid_body"
    LIST_TOO_LONG = "list_too_long"

    # A bar.
    INVALID_BAR = "invalid_bar"
    UNKNOWN_SYMBOL = "unknown_symbol"
    OTHER_DAY = "other_day"
    NO_ANCHOR = "no_anchor"
    SUSPECT_SYMBOL = "suspect_symbol"
    SMALLER_VOLUME = "smaller_volume"
    HUGE_VOLUME = "huge_volume"
    IMPLAUSIBLE_PRICE = "implausible_price"
    ANCHOR_MOVED = "anchor_moved"
    FUTURE_DAY = "future_day"
    CLOSED_DAY = "closed_day"
    BEFORE_HISTORY = "before_history"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    DISPUTED = "disputed"
    IMPOSSIBLE_PRICE = "impossible_price"
    IMPOSSIBLE_VOLUME = "impossible_volume"

    @property
    def is_failure(self) -> bool:
        """Whether the refusal counts against the sender's reputation."""
        return self is Code.IMPLAUSIBLE_PRICE


# The texts of a bar's refusals. They are older than the codes: existing nodes know a refusal by its
# text, and we know theirs by it.
DETAILS = {
    Code.UNKNOWN_SYMBOL: "unknown symbol",
    Code.OTHER_DAY: "not the current trading day",
    Code.NO_ANCHOR: "no trusted close to judge it by yet",
    Code.SUSPECT_SYMBOL: "the node's own bar of the symbol can't be right",
    Code.SMALLER_VOLUME: "volume is smaller than what is served",
    Code.HUGE_VOLUME: "volume is far beyond the symbol's usual",
    Code.IMPLAUSIBLE_PRICE: "Implausible price change",
    Code.ANCHOR_MOVED: "the trusted price has just changed; send the bar again",
    Code.FUTURE_DAY: "time is after the node's current day",
    Code.CLOSED_DAY: "the exchanges were closed on that day",
    Code.BEFORE_HISTORY: "time is before the node's first day",
    Code.TOO_MANY_SYMBOLS: "the node keeps as many symbols as it may",
    Code.DISPUTED: "the node's own source says otherwise of that symbol and day",
    Code.IMPOSSIBLE_PRICE: "a price is beyond ten times the last trusted close, or under a tenth",
    Code.IMPOSSIBLE_VOLUME: "volume is over 50 times the largest of the symbol's last 60 days",
}
ABOUT_A_BAR = frozenset({Code.INVALID_BAR, *DETAILS})


class WireError(ValueError):
    """The body is no gossip; the message says what was expected."""


class TooLongError(WireError):
    """The list has more bars than a node takes at once."""


@dataclass(frozen=True, slots=True)
class Gossip:
    """A decoded body; each of ``entries``, in its order, is a bar or the reason why it is none."""

    entries: list[Bar | BarError]
    is_list: bool


def decode(body: bytes) -> Gossip:
    """Read a JSON body (RFC 8259: UTF-8, a byte order mark is ignored); raises WireError.

    A wrong entry of a list spoils only itself.
    """
    if not body:
        raise WireError("The body is empty: send one bar or a list of bars, with a Content-Length.")
    try:
        decoded = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise WireError("The body is nested too deeply.") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are two
        raise WireError("The body isn't JSON.") from None
    if isinstance(decoded, dict):
        return Gossip([_entry(decoded)], is_list=False)
    if not isinstance(decoded, list):
        raise WireError("The body must be one bar or a list of bars.")
    if not decoded:
        raise WireError("The list is empty: send at least one bar.")
    if len(decoded) > MAX_LIST:
        raise TooLongError(f"A list has at most {MAX_LIST} bars; send several.")
    return Gossip([_entry(item) for item in decoded], is_list=True)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _entry(item: Any) -> Bar | BarError:
    if not isinstance(item, dict):
        return BarError("a bar must be a JSON object")
    try:
        return parse(item)
    except BarError as error:
        return error


def refuses_bars(body: bytes) -> bool:
    """Tell whether a refusal's ``body`` is about the bars, and not about the request."""
    try:
        refusal = json.loads(body)
    except (ValueError, RecursionError):
        refusal = None
    if isinstance(refusal, dict) and "code" in refusal:
        return refusal["code"] in ABOUT_A_BAR
    return any(detail.encode() in body for detail in DETAILS.values())


def body_of(bars: Sequence[bytes]) -> bytes:
    """Return the body that sends these encoded bars: a single one as it is, several as a list."""
    return bars[0] if len(bars) == 1 else b"[" + b",".join(bars) + b"]"
