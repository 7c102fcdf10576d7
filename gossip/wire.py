"""The wire form of gossip: a body is one bar or a list of bars."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tickers.bar import Bar, BarError, parse

MAX_LIST = 1_000  # bars


class WireError(ValueError):
    """A body that is no gossip; the message says what was expected."""


class TooLongError(WireError):
    """A list of more bars than a node takes at once."""


@dataclass(frozen=True, slots=True)
class Gossip:
    """``entries`` in the order of the body: a bar each, or the reason why it is none."""

    entries: list[Bar | BarError]
    is_list: bool


def decode(body: bytes) -> Gossip:
    """Read a JSON body (RFC 8259: UTF-8, a byte order mark is ignored); raises WireError.

    In a list, a wrong entry spoils only itself.
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


def body_of(bars: Sequence[bytes]) -> bytes:
    """The body that sends these encoded bars: a single one as it is, several as a list."""
    return bars[0] if len(bars) == 1 else b"[" + b",".join(bars) + b"]"
