"""Bounded bodies: the body of an answer is read raw and decoded within limits.

requests and urllib3 would decode a whole piece at once, in every encoding that happens to be
installed: 96 kB of zstd became 1.5 GB.
"""

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

from urllib3.response import BaseHTTPResponse

from tickers.bounded_exchange import EncodingError, TooLargeError, TruncatedError

ACCEPT_ENCODING = "gzip"
SHORT_BODY = 4_096  # bytes that are read of an unwanted body
# A market's JSON compresses to a tenth, a uniform one's to a fiftieth, a bomb to a thousandth.
MOST_COMPRESSED = 200
ANY_RATIO = 16_000_000  # decoded bytes below which the ratio doesn't matter

_PIECE = 65_536

Examine = Callable[[bytes], None]  # gets each decoded piece; raises to reject the body


def read_body(
    response: BaseHTTPResponse, *, max_body: int, examine: Examine | None = None
) -> bytes:
    """Return the decoded body, of at most ``max_body`` bytes.

    Raises EncodingError for anything but identity or gzip, TooLargeError, TruncatedError, what
    ``examine`` raises, and urllib3's errors.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    pieces = _raw(response)
    if encoding in ("gzip", "x-gzip"):
        pieces = _gunzip(pieces)
    elif encoding not in ("", "identity"):
        raise EncodingError("answered in an encoding that it wasn't asked for")
    body = BytesIO()  # unlike a list of pieces, it never holds the body twice
    for piece in pieces:
        if body.tell() + len(piece) > max_body:
            raise TooLargeError(f"gave an answer that is larger than {max_body} bytes")
        if examine is not None:
            examine(piece)
        body.write(piece)
    return body.getvalue()


def read_short(response: BaseHTTPResponse) -> bytes:
    """Return the start of an unwanted body, decoded, and of at most SHORT_BODY bytes.

    It is empty where the body can't be decoded. Raises urllib3's errors.
    """
    body: bytes = response.read(SHORT_BODY, decode_content=False)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    try:
        decoded = next(_gunzip(iter([body])), b"") if encoding in ("gzip", "x-gzip") else b""
    except TruncatedError:
        return b""
    return decoded[:SHORT_BODY]


def _raw(response: BaseHTTPResponse) -> Iterator[bytes]:
    while piece := response.read(_PIECE, decode_content=False):
        yield piece


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decode the members of a gzip body, in pieces of at most _PIECE bytes."""
    decoder = _decoder()
    begun, read, made = False, 0, 0
    for piece in pieces:
        read += len(piece)
        left = piece
        while left:
            if decoder.eof:
                decoder = _decoder()
            begun = True
            try:
                decoded = decoder.decompress(left, _PIECE)
            except zlib.error:
                raise TruncatedError("gave an answer that can't be decompressed") from None
            made += len(decoded)
            if made > ANY_RATIO and made > MOST_COMPRESSED * read:
                raise TooLargeError("gave an answer that is compressed like no market is")
            yield decoded
            left = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if begun and not decoder.eof:
        raise TruncatedError("gave an answer that can't be decompressed: it was broken off")


def _decoder() -> "zlib._Decompress":
    return zlib.decompressobj(16 + zlib.MAX_WBITS)
