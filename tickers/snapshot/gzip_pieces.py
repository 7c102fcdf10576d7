"""Gzip pieces are compressed apart and joined into one gzip stream.

A deflate stream that was flushed ends on a whole byte and refers to nothing before its own
beginning, so such pieces may follow one another (RFC 1951; Z_FULL_FLUSH). A symbol's history is
compressed once: joining the market costs milliseconds where compressing it anew costs hundreds. The
stream has one member, because not every reader takes several.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

NAME = "gzip"
LEVEL = 6
STREAM_LEVEL = 1  # of what is compressed anew for each reader
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
_END = b"\x03\x00"  # an empty last block


def piece(data: bytes) -> bytes:
    """Compress ``data`` into deflate blocks that end on a whole byte and aren't the last."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)


def join(pieces: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Join (plain data, piece) pairs into a gzip file."""
    packed, checksum, length = [_HEADER], 0, 0
    for plain, one in pieces:
        packed.append(one)
        checksum = zlib.crc32(plain, checksum)
        length += len(plain)
    trailer = struct.pack("<II", checksum, length & 0xFFFFFFFF)
    return b"".join([*packed, _END, trailer])


def stream(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Compress plain ``parts`` into a gzip file, each as it comes."""
    compressor = zlib.compressobj(STREAM_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    for part in parts:
        yield compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()
