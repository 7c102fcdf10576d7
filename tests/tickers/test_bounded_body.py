"""A body is decoded piece by piece, within limits, and only when it was asked for so."""

import contextlib
import gzip
import io

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from tickers.bounded_body import ANY_RATIO, SHORT_BODY, read_body, read_short
from tickers.bounded_exchange import EncodingError, HttpError, TooLargeError, TruncatedError

PACKED = gzip.compress(b"{}", mtime=0)  # the same in every process that collects these tests


def response(body: bytes, encoding: str | None = None) -> urllib3.HTTPResponse:
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    return urllib3.HTTPResponse(io.BytesIO(body), headers, preload_content=False)


def read(body: bytes, encoding: str | None = None, *, max_body: int = 1_000_000) -> bytes:
    return read_body(response(body, encoding), max_body=max_body)


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_a_plain_body_is_what_came(encoding: str | None) -> None:
    assert read(b"[1]", encoding) == b"[1]"


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_gzip_is_decoded_in_any_number_of_members(members: list[bytes]) -> None:
    packed = b"".join(gzip.compress(member) for member in members)
    assert read(packed, "gzip") == b"".join(members)


def test_an_empty_body_is_empty_whatever_its_encoding() -> None:
    assert read(b"", "gzip") == b""


@pytest.mark.parametrize("encoding", ["zstd", "br", "deflate", "gzip, gzip", "gzip,identity", "x"])
def test_any_other_encoding_is_refused_unread(encoding: str) -> None:
    answer = response(gzip.compress(b"[1]"), encoding)
    with pytest.raises(EncodingError):
        read_body(answer, max_body=1_000)
    assert answer.tell() == 0


@given(st.binary(min_size=1), st.data())
def test_gzip_that_is_cut_or_bent_is_truncated_or_whole(
    content: bytes, data: st.DataObject
) -> None:
    packed = gzip.compress(content)
    cut = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(TruncatedError, match="decompressed"):
        read(packed[:cut], "gzip")
    bent = bytearray(packed)
    bent[cut] ^= 0xFF
    with contextlib.suppress(HttpError):
        read(bytes(bent), "gzip")


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_it_ends_at_the_limit(encoding: str | None) -> None:
    for size in (1_000, 1_001):
        content = bytes(size)
        packed = gzip.compress(content) if encoding else content
        if size <= 1_000:
            assert read(packed, encoding, max_body=1_000) == content
        else:
            with pytest.raises(TooLargeError, match="larger than 1000 bytes"):
                read(packed, encoding, max_body=1_000)


def test_a_bomb_is_refused_long_before_the_limit() -> None:
    seen = 0

    def examine(piece: bytes) -> None:
        nonlocal seen
        seen += len(piece)

    bomb = response(gzip.compress(bytes(100_000_000)), "gzip")
    with pytest.raises(TooLargeError, match="compressed like no market"):
        read_body(bomb, max_body=200_000_000, examine=examine)
    assert seen < ANY_RATIO * 2


def test_each_piece_is_examined_as_it_comes() -> None:
    def refuse(piece: bytes) -> None:
        raise LookupError(len(piece))

    with pytest.raises(LookupError):
        read_body(
            response(gzip.compress(bytes(10_000_000)), "gzip"), max_body=1_000_000, examine=refuse
        )


class TestTheStartOfAnUnwantedBody:
    @pytest.mark.parametrize(
        ("body", "encoding"),
        [(b"{}", None), (PACKED, "gzip"), (PACKED, "X-Gzip")],
    )
    def test_is_decoded(self, body: bytes, encoding: str | None) -> None:
        assert read_short(response(body, encoding)) == b"{}"

    @pytest.mark.parametrize(
        ("body", "encoding"),
        [(b"", "gzip"), (b"{}", "gzip"), (PACKED, "br"), (b"{}", "zstd")],
    )
    def test_is_empty_where_it_cant_be(self, body: bytes, encoding: str) -> None:
        assert read_short(response(body, encoding)) == b""

    @pytest.mark.parametrize("encoding", [None, "gzip"])
    def test_is_short_however_long_the_body_is(self, encoding: str | None) -> None:
        body = b"a" * 50_000_000
        answer = response(gzip.compress(body) if encoding else body, encoding)
        assert read_short(answer) == b"a" * SHORT_BODY
        assert answer.tell() == SHORT_BODY
