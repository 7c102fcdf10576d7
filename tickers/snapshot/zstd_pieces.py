"""One zstd stream out of pieces that were compressed apart.

A frame stands for itself, and frames that follow one another are one stream (RFC 8878, 3.1), so a
piece is a frame. Their windows are at most as large as a piece, far below the 8 MB that browsers
take (RFC 9659).
"""

import sys
from collections.abc import Iterable, Iterator

if sys.version_info >= (3, 14):
    from compression import zstd as zstd  # others take it from here
else:
    from backports import zstd as zstd

NAME = "zstd"
# Histories are compressed once. A bar between two of them is compressed with every revision, has
# nothing to be found in it, and at this level would take five times as long to be as large.
LEVEL = 9
SMALL, SMALL_LEVEL = 4_096, 3  # bytes
STREAM_LEVEL = 1  # of what is compressed anew for each reader


def piece(data: bytes) -> bytes:
    return zstd.compress(data, SMALL_LEVEL if len(data) < SMALL else LEVEL)


def join(pieces: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The stream of pieces, each with its plain data before it."""
    return b"".join([one for _, one in pieces])


def stream(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The stream of plain ``parts``, each compressed as it comes."""
    for part in parts:
        yield zstd.compress(part, STREAM_LEVEL)
