"""One gzip stream out of pieces that were compressed apart.

A deflate stream that was flushed ends on a whole byte and looks back no further than its own
beginning, so such pieces may follow one another (RFC 1951; Z_FULL_FLUSH). What is compressed once,
a symbol's history, is never compressed again: joining the market costs milliseconds where
compressing it anew costs hundreds. It is one member, because not every reader takes several.
"""

import struct
import zlib
from collections.abc import Iterable

LEVEL = 6
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
_END = b"\x03\x00"  # an empty last block


def piece(data: bytes) -> bytes:
    """``data`` as deflate blocks that end on a whole byte and aren't the last."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)


def join(pieces: Iterable[bytes], *, plain: bytes) -> bytes:
    """A gzip file of ``pieces``, whose contents together are ``plain``."""
    trailer = struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
    return b"".join([_HEADER, *pieces, _END, trailer])
