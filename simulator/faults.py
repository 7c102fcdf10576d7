"""Faults: bad answers of an upstream, which the simulator gives on order."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class BodyFault(StrEnum):
    """The fault of an answer with status 200."""

    HTML = "html"  # a page of a bot check instead of bars
    NOT_JSON = "not_json"
    TRUNCATED = "truncated"  # the connection ends before Content-Length is reached
    EMPTY = "empty"  # no symbol at all
    OBJECT = "object"  # an object instead of a list
    NULL_VALUES = "null_values"  # the first symbol's last close and volume
    NAN = "nan"  # the first symbol's last close
    MISMATCH = "mismatch"  # the first symbol's closes are one short
    MISSING_KEY = "missing_key"  # the first symbol has no volumes
    BAD_TIME = "bad_time"  # the first symbol's last time is a word
    EMPTY_COLUMNS = "empty_columns"  # the first symbol has columns without values
    TEXTS = "texts"  # every price of every symbol is a string
    MILLISECONDS = "milliseconds"  # every time of every symbol
    NULLS = "nulls"  # every price and volume of every symbol
    SLOW_BODY = "slow_body"  # a drop a second, for a minute
    RESET = "reset"  # the connection ends without an answer


# These faults are in how an answer is sent, the others in what it says.
IN_SENDING = frozenset({BodyFault.TRUNCATED, BodyFault.SLOW_BODY, BodyFault.RESET})
_OF_ALL = frozenset({BodyFault.TEXTS, BodyFault.MILLISECONDS, BodyFault.NULLS})


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: either a ``status`` to answer with, or the fault of the body."""

    status: int | None = None
    body: BodyFault | None = None

    @property
    def name(self) -> str:
        return f"fault_{self.status or self.body}"


def encode(reply: list[dict[str, Any]], fault: BodyFault | None) -> tuple[bytes, str]:
    """Return the body and content type of a 200 answer that has ``fault``.

    ``reply`` is changed in place. A reply without bars has no columns that a fault could be in.
    """
    match fault:
        case BodyFault.HTML:
            return b"<html><body>Just a moment...</body></html>", "text/html"
        case BodyFault.NOT_JSON:
            return b'[{"symbol":', "application/json"
        case BodyFault.EMPTY:
            return b"[]", "application/json"
        case BodyFault.OBJECT:
            return b'{"status": "error"}', "application/json"
    if fault in _OF_ALL:
        for columns in reply:
            _spoil_columns(columns, fault)
    elif fault is not None and reply and reply[0]["t"]:
        _spoil_columns(reply[0], fault)
    return json.dumps(reply, separators=(",", ":")).encode(), "application/json"


def _spoil_columns(columns: dict[str, Any], fault: BodyFault) -> None:
    match fault:
        case BodyFault.NULL_VALUES:
            columns["c"][-1] = columns["v"][-1] = None
        case BodyFault.NAN:
            columns["c"][-1] = float("nan")
        case BodyFault.MISMATCH:
            columns["c"].pop()
        case BodyFault.MISSING_KEY:
            del columns["v"]
        case BodyFault.BAD_TIME:
            columns["t"][-1] = "not-a-time"
        case BodyFault.EMPTY_COLUMNS:
            columns.update({key: [] for key in "tohlcv"})
        case BodyFault.TEXTS:
            columns.update({key: [str(price) for price in columns[key]] for key in "ohlc"})
        case BodyFault.MILLISECONDS:
            columns["t"] = [f"{time}000" for time in columns["t"]]
        case BodyFault.NULLS:
            columns.update({key: [None] * len(columns["t"]) for key in "ohlcv"})
