"""Zstd pieces are compressed apart and joined into one zstd stream.

A piece is a frame: frames are independent, and in a row they are one stream (RFC 8878, 3.1). Their
windows are at most as large as a piece, far below the 8 MB that browsers take (RFC 9659).
"""

import sys
from collections.abc import Iterable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd as zstd  # other modules import it from here
else:
    from backports import zstd as zstd

NAME = "zstd"
# Histories are compressed once, at this level. A bar between two of them is compressed with every
# revision, and this level would take five times as long to make it no smaller.
LEVEL = 9
SMALL, SMALL_LEVEL = 4_096, 3  # bytes
STREAM_LEVEL = 1  # of what is compressed anew for each reader


def piece(data: bytes) -> bytes:
    return zstd.compress(data, SMALL_LEVEL if len(data) < SMALL else LEVEL)


def join(pieces: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Join (plain data, piece) pairs into a stream."""
    return b"".join([one for _, one in pieces])


def stream(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Compress plain ``parts`` into a stream, each as it comes."""
    for part in parts:
        yield zstd.compress(part, STREAM_LEVEL)
