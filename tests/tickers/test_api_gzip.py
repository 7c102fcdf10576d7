"""GET /tickers compressed: the same market, for who asks for it."""

import gzip
from typing import Any

import pytest

from tests.support.bars import FRIDAY, MONDAY, bar
from tests.tickers.test_api import ACTOR, fence, get, market, node  # noqa: F401 - its fixtures
from tickers.snapshot.zstd_pieces import zstd
from tickers.store.store import Store
from tickers.verdict import Authority

pytestmark = pytest.mark.usefixtures("market")

UNPACK = {"gzip": gzip.decompress, "zstd": zstd.decompress}
QUERIES: list[dict[str, Any]] = [{}, {"limit": 1}, {"authority": "trusted"}]


@pytest.mark.parametrize("query", QUERIES, ids=str)
@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("gzip", "gzip"),
        ("br, gzip;q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate, GZIP", "gzip"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("*", "zstd"),
    ],
)
def test_a_compressed_market_is_the_same_market(
    query: dict[str, Any], accepts: str, coding: str
) -> None:
    plain, packed = get(query=query), get(query=query, accept_encoding=accepts)
    assert packed["Content-Encoding"] == coding
    assert UNPACK[coding](packed.content) == plain.content
    assert packed["Content-Length"] == str(len(packed.content))
    assert packed["ETag"] == plain["ETag"]
    assert packed["Vary"] == plain["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "accepts",
    [
        "",
        "identity",
        "br",
        "gzip;q=0",
        "gzip; q=0.0",
        "gzip;q=0, zstd;q=0",
        "*;q=0",
        "identity, *;q=0.5",
    ],
)
def test_an_answer_is_plain_for_who_doesnt_take_compression(accepts: str) -> None:
    assert not get(accept_encoding=accepts).has_header("Content-Encoding")


@pytest.mark.parametrize("query", [{"symbol": "VCB"}, {"limit": 2}, {"start_date": "2025-08-14"}])
@pytest.mark.parametrize("coding", UNPACK)
def test_small_and_rare_bodies_stay_plain(query: dict[str, Any], coding: str) -> None:
    assert not get(query=query, accept_encoding=coding).has_header("Content-Encoding")


@pytest.mark.parametrize("coding", UNPACK)
def test_a_compressed_market_is_made_once_a_revision(market: Store, coding: str) -> None:  # noqa: F811
    first, again = (get(accept_encoding=coding).content for _ in range(2))
    assert first is again


@pytest.mark.parametrize("coding", UNPACK)
def test_a_compressed_market_follows_every_change(market: Store, fence: str, coding: str) -> None:  # noqa: F811
    changes = [
        bar(volume=9_000),
        bar("FPT"),
        bar("VCB", MONDAY, close=61_000),
    ]
    for changed in changes:
        market.merge([changed], Authority.CORE, fence=fence)
        assert UNPACK[coding](get(accept_encoding=coding).content) == get().content
    overlay = bar("VCB", FRIDAY, close=64_500, volume=20_000)
    anchor = market.newest(["VCB"])["VCB"].anchor
    assert market.lay([(overlay, anchor)], actor=ACTOR, late_after=0).changed == 1
    for query in QUERIES:
        packed = get(query=query, accept_encoding=coding)
        if packed.has_header("Content-Encoding"):
            assert UNPACK[coding](packed.content) == get(query=query).content
        else:
            assert query == {"authority": "trusted"}
