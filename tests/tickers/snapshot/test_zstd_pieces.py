"""Pieces compressed apart are one zstd stream for every reader."""

import io
import random
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.response import HTTPResponse

from tests.support.bars import MONDAY, bar
from tickers.snapshot import gzip_pieces, zstd_pieces
from tickers.snapshot.zstd_pieces import zstd

BROWSERS_TAKE = 8 * 2**20  # bytes of window: RFC 9659, 3


def pieces(contents: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(one, zstd_pieces.piece(one)) for one in contents]


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=20))
def test_joined_pieces_are_read_as_one_stream(contents: list[bytes]) -> None:
    assert zstd.decompress(zstd_pieces.join(pieces(contents))) == b"".join(contents)


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=20))
def test_what_is_compressed_on_its_way_is_the_same(contents: list[bytes]) -> None:
    assert zstd.decompress(b"".join(zstd_pieces.stream(iter(contents)))) == b"".join(contents)


def test_the_library_that_nodes_follow_each_other_with_reads_it() -> None:
    contents = [b"history " * 1_000, b"newest", b"}"]
    joined = zstd_pieces.join(pieces(contents))
    answer = HTTPResponse(body=io.BytesIO(joined), headers={"content-encoding": "zstd"})
    assert answer.data == b"".join(contents)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this machine")
def test_the_command_reads_it() -> None:
    contents = [b"0123456789" * 5_000, b"7"]
    joined = zstd_pieces.join(pieces(contents))
    done = subprocess.run(["zstd", "-dc"], input=joined, capture_output=True, check=True)
    assert done.stdout == b"".join(contents)


def test_no_frame_needs_more_memory_than_browsers_give() -> None:
    """Of the longest history that a series may have, as of a part that is sent."""
    draw = random.Random(1)
    long = b",".join(bar(volume=draw.randint(1, 10**8)).encode() for _ in range(20_000 * 2))
    assert len(long) > 4 * 2**20
    for frame in (zstd_pieces.piece(long), *zstd_pieces.stream([long])):
        options: dict[int, int] = {
            zstd.DecompressionParameter.window_log_max: BROWSERS_TAKE.bit_length() - 1
        }
        assert zstd.ZstdDecompressor(options=options).decompress(frame) == long


def test_a_history_is_smaller_than_as_gzip() -> None:
    draw = random.Random(1)
    history = b",".join(
        bar(
            day=MONDAY, close=50 * draw.randint(1_000, 1_400), volume=draw.randint(1, 10**7)
        ).encode()
        for _ in range(400)
    )
    assert len(zstd_pieces.piece(history)) < 0.9 * len(gzip_pieces.piece(history))
