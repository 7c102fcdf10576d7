"""Pieces compressed apart are one gzip file for every reader."""

import gzip
import shutil
import subprocess
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.snapshot import gzip_pieces


@given(st.lists(st.binary(max_size=2_000), max_size=20))
def test_joined_pieces_are_read_as_one_file(contents: list[bytes]) -> None:
    plain = b"".join(contents)
    joined = gzip_pieces.join((one, gzip_pieces.piece(one)) for one in contents)
    assert gzip.decompress(joined) == plain
    # One member: a reader that takes only the first has it all.
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert reader.decompress(joined) + reader.flush() == plain
    assert reader.eof
    assert reader.unused_data == b""


def test_a_piece_may_stand_in_several_files() -> None:
    history = b"history " * 1_000
    shared = gzip_pieces.piece(history)
    for newest in (b"one", b"two"):
        joined = gzip_pieces.join([(history, shared), (newest, gzip_pieces.piece(newest))])
        assert gzip.decompress(joined) == history + newest


@pytest.mark.skipif(shutil.which("gunzip") is None, reason="no gunzip on this machine")
def test_the_command_that_everybody_has_reads_it() -> None:
    plain = b"0123456789" * 5_000
    joined = gzip_pieces.join((one, gzip_pieces.piece(one)) for one in (plain[:7], plain[7:]))
    done = subprocess.run(["gunzip", "-c"], input=joined, capture_output=True, check=True)
    assert done.stdout == plain
