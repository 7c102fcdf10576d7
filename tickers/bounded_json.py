"""Bounded JSON: a text from others is examined before it is built into objects.

A market is dense and flat, and its values are short; but twenty million ``{}`` are 40 MB of text
and 1.5 GB of dictionaries. So the text's brackets, commas and digits are counted first, a piece at
a time, with fast methods of bytes. Strings are counted like the rest, since no market has brackets
in them.
"""

import json
import re
from itertools import accumulate, count
from operator import sub
from typing import Any

MAX_DEPTH = 32
MAX_DIGITS = 1_000  # of a number; Python's int() refuses more than 4,300
# The shortest bar is an object of 78 bytes with 14 commas and colons; a column of the upstream's
# has a value every 5 bytes or more, on average. A text below a FREE size may have any shape.
FREE_CONTAINERS = 100_000
BYTES_A_CONTAINER = 50
FREE_VALUES = 500_000
BYTES_A_VALUE = 4
# A bar has a comma or colon every 8 bytes, or 14 if it is indented.
FREE_BYTES = 1_000_000
MAX_BYTES_A_VALUE = 64
# In memory one character beyond Latin-1 makes its whole text two to four times as large.
FREE_TEXT = 16_000_000

_PIECE = 1_000_000
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_SKELETON = b'"[]{},:'
_FLESH = bytes(set(range(256)) - set(_SKELETON))
_STEPS = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_TOO_LONG = b"0" * MAX_DIGITS


class JsonError(ValueError):
    """The text isn't JSON, or can't be a market.

    In broken JSON of ``length`` characters, ``position`` is the character of the error or the end.
    """

    def __init__(self, message: str, *, position: int | None = None, length: int = 0) -> None:
        super().__init__(message)
        self.position = position
        self.length = length


def loads(body: bytes) -> Any:
    """Examine and build the JSON ``body`` (UTF-8, NaN and Infinity allowed). Raises JsonError."""
    shape = Shape()
    for start in range(0, len(body), _PIECE):
        shape.feed(body[start : start + _PIECE])
    return build(body)


def build(body: bytes) -> Any:
    """Build as ``loads`` does a body that a Shape has examined already."""
    try:
        return json.loads(body.decode())
    except json.JSONDecodeError as error:
        raise JsonError(error.msg, position=error.pos, length=len(error.doc)) from None
    except (ValueError, RecursionError):
        raise JsonError("it is not UTF-8, or a number has too many digits") from None


class Shape:
    """The shape of a text, fed in pieces; raises JsonError as soon as it can't be a market's."""

    def __init__(self) -> None:
        self._size = self._containers = self._values = self._depth = 0
        self._odd = False  # it has characters beyond ASCII, or escapes, which may stand for some
        self._in_string = self._escaping = False
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        self._refuse_long_numbers(piece)
        self._odd = self._odd or not piece.isascii() or b"\\" in piece
        if self._odd and self._size > FREE_TEXT:
            raise JsonError("a text of this size with other characters than ASCII is no market")
        skeleton = self._unescaped(piece).translate(None, _FLESH)
        self._refuse_depth(skeleton)
        self._refuse_odd_counts(skeleton)

    def _refuse_odd_counts(self, skeleton: bytes) -> None:
        self._containers += skeleton.count(b"{") + skeleton.count(b"[")
        self._values += skeleton.count(b",") + skeleton.count(b":")
        if self._containers > FREE_CONTAINERS + self._size / BYTES_A_CONTAINER:
            raise JsonError("a market has no such number of lists and objects")
        if self._values > FREE_VALUES + self._size / BYTES_A_VALUE:
            raise JsonError("a market has no such number of values")
        if self._values < (self._size - FREE_BYTES) / MAX_BYTES_A_VALUE:
            raise JsonError("a market has more values in a text of this size")

    def _refuse_depth(self, skeleton: bytes) -> None:
        # Two strings that touch become one, and most strings become nothing.
        brackets = skeleton.translate(None, b",:").replace(b'""', b"")
        if self._in_string:
            brackets = b'"' + brackets
        brackets = _STRING.sub(b"", brackets)
        outside, quote, _ = brackets.partition(b'"')
        self._in_string = bool(quote)
        steps = outside.translate(_STEPS)  # each is one more than the change of the depth
        if max(map(sub, accumulate(steps, initial=self._depth), count())) > MAX_DEPTH:
            raise JsonError(f"it is nested too deep, beyond {MAX_DEPTH} levels")
        self._depth += sum(steps) - len(steps)

    def _refuse_long_numbers(self, piece: bytes) -> None:
        digits = (self._tail + piece).translate(_ZEROS)
        if _TOO_LONG in digits:
            raise JsonError("a number has thousands of digits")
        self._tail = digits[1 - MAX_DIGITS :]

    def _unescaped(self, piece: bytes) -> bytes:
        """Return the piece without escaped characters, which may be quotes."""
        if self._escaping:
            piece = b"\\" + piece
        if b"\\" not in piece:
            self._escaping = False
            return piece
        piece = _ESCAPED.sub(b"", piece)
        self._escaping = piece.endswith(b"\\")
        return piece
