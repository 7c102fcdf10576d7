"""The content codings of the market, and the choice of the one that a client prefers."""

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from tickers.snapshot import gzip_pieces, zstd_pieces


class Coding(Protocol):
    """A content coding (RFC 9110, 8.4.1) whose streams join pieces that were compressed apart."""

    NAME: str

    def piece(self, data: bytes, /) -> bytes:
        """Compress ``data`` into a part of a stream, whatever comes before and after it."""

    def join(self, pieces: Iterable[tuple[bytes, bytes]], /) -> bytes:
        """Join (plain data, piece) pairs into a stream."""

    def stream(self, parts: Iterable[bytes], /) -> Iterator[bytes]:
        """Compress plain parts into a stream, each as it comes."""


# The first is taken at equal weights: it compresses better.
CODINGS: tuple[Coding, ...] = (zstd_pieces, gzip_pieces)
_ALIASES = {"x-gzip": "gzip"}  # RFC 9110, 8.4.1.3
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@functools.lru_cache(maxsize=128)
def preferred(accept_encoding: str) -> Coding | None:
    """Return the coding that this header prefers (RFC 9110, 12.5.3); None: no compression.

    Without a header, or with an empty one, nothing is compressed. ``identity`` comes last when it
    isn't named.
    """
    weights = _weights(accept_encoding)
    others = weights.get("*", 0.0)
    best, chosen = weights.get("identity", 0.0), None
    for coding in CODINGS:
        weight = weights.get(coding.NAME, others)
        if weight and weight >= best and (chosen is None or weight > best):
            best, chosen = weight, coding
    return chosen


def _weights(accept_encoding: str) -> dict[str, float]:
    """Read coding → weight from the header; what can't be read is left out."""
    weights: dict[str, float] = {}
    for element in accept_encoding.lower().split(","):
        name, semicolon, parameter = (part.strip() for part in element.partition(";"))
        if not semicolon:
            weight = 1.0
        elif found := _WEIGHT.fullmatch(parameter.replace(" ", "")):
            weight = float(found[1])
        else:
            continue
        if name:
            weights[_ALIASES.get(name, name)] = weight
    return weights
