"""GET /tickers of a market that is larger than the process's memory limit."""

import gc
import gzip
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.test import RequestFactory
from django.urls import resolve

from tests.support.bars import FRIDAY, bar
from tests.support.doors import CLIENT, forget, store_lost
from tests.tickers.test_api import DAYS, fence, get, lay, node  # noqa: F401 - its fixtures
from tickers import wiring
from tickers.snapshot.snapshot import PART
from tickers.snapshot.zstd_pieces import zstd
from tickers.store.store import Store
from tickers.verdict import Authority

SYMBOLS = [f"S{number:02}" for number in range(2 * PART + 3)]
NOTHING_HELD = 0  # MB
SOME_HELD = 0.026
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
}

QUERIES: list[dict[str, Any]] = [
    {},
    {"authority": "trusted"},
    {"limit": 1},
    {"limit": 2},
    {"limit": 2, "end_date": "2025-08-13"},
    {"start_date": "2025-08-13", "end_date": "2025-08-14"},
    {"start_date": "2025-08-15"},
    {"start_date": "2030-01-01"},
    {"symbol": "S05"},
    {"symbol": ["S05", "S00"], "limit": 3},
    {"symbol": SYMBOLS[:-1]},
    {"symbol": "NONE"},
]


@pytest.fixture(params=[NOTHING_HELD, SOME_HELD], ids=["nothing held", "some held"])
def market(node: Store, fence: str, settings: Any, request: Any) -> Iterator[Store]:  # noqa: F811
    """A week of every symbol, one with an overlay; the limit holds few histories, or none."""
    node.merge(
        [bar(symbol, day) for symbol in SYMBOLS for day in DAYS], Authority.CORE, fence=fence
    )
    lay(node, bar("S00", FRIDAY, volume=9_000))
    settings.SNAPSHOT_MEMORY = request.param
    forget()
    yield wiring.store()
    forget()


def content(answer: Any) -> bytes:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return UNPACK[answer.get("Content-Encoding", "identity")](body)


def without_limit(settings: Any, query: dict[str, Any], **headers: str) -> Any:
    limit, settings.SNAPSHOT_MEMORY = settings.SNAPSHOT_MEMORY, 512
    forget()
    try:
        return get(query=query, **headers)
    finally:
        settings.SNAPSHOT_MEMORY = limit
        forget()


@pytest.mark.parametrize("coding", UNPACK)
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_an_answer_is_byte_for_byte_the_market_without_a_limit(
    market: Store, settings: Any, query: dict[str, Any], coding: str
) -> None:
    expected = without_limit(settings, query)
    answer = get(query=query, accept_encoding=coding)
    assert answer.status_code == 200
    assert content(answer) == expected.content
    for name in ("ETag", "Vary", "Content-Type", "Cache-Control", "Access-Control-Allow-Origin"):
        assert answer[name] == expected[name]


def test_an_answer_is_sent_as_it_is_read(market: Store) -> None:
    answer = get()
    assert answer.streaming
    assert "Content-Length" not in answer
    parts = list(answer.streaming_content)
    assert len(parts) == 4  # three of symbols, and the end
    assert max(map(len, parts)) < 0.5 * sum(map(len, parts))


def test_an_answer_that_was_sent_is_freed_at_once(market: Store) -> None:
    """Not when the garbage collector comes by: it may hold a whole market."""
    gc.collect()
    gc.disable()
    try:
        answer = resolve("/tickers").func(RequestFactory().get("/tickers?limit=1"))
        assert b"S05" in answer.content
        sent = weakref.ref(answer)
        del answer
        assert sent() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_an_answer_is_compressed_on_its_way(market: Store, coding: str) -> None:
    answer = get(accept_encoding=coding)
    assert answer["Content-Encoding"] == coding
    parts = list(answer.streaming_content)
    assert len(parts) > 3
    assert len(b"".join(parts)) < 0.3 * len(content(get()))


def test_an_answer_of_few_symbols_has_a_length(market: Store) -> None:
    answer = get(query={"symbol": ["S05", "S06"]})
    assert answer["Content-Length"] == str(len(answer.content))


def test_a_market_is_not_sent_to_who_has_it(market: Store) -> None:
    answer = get()
    content(answer)
    again = get(if_none_match=answer["ETag"])
    assert (again.status_code, again.content) == (304, b"")


def test_head_has_the_headers_of_get_without_its_body(market: Store) -> None:
    whole, head = get(), CLIENT.head("/tickers")
    content(whole)
    assert head.status_code == 200
    assert content(head) == b""
    assert "Content-Length" not in head
    for name in ("ETag", "Content-Type", "Cache-Control", "Vary"):
        assert head[name] == whole[name]
    one = CLIENT.head("/tickers", {"symbol": "S05"})
    assert one["Content-Length"] == get(query={"symbol": "S05"})["Content-Length"]


class TestTheStoreAway:
    @pytest.mark.parametrize("query", [{}, {"symbol": "S20"}, {"symbol": SYMBOLS}, {"limit": 2}])
    @pytest.mark.parametrize("method", ["get", "head"])
    def test_what_is_not_held_is_a_503(
        self,
        node: Store,  # noqa: F811
        fence: str,  # noqa: F811
        settings: Any,
        query: dict[str, Any],
        method: str,
    ) -> None:
        node.merge(
            [bar(symbol, day) for symbol in SYMBOLS for day in DAYS], Authority.CORE, fence=fence
        )
        settings.SNAPSHOT_MEMORY = NOTHING_HELD
        forget()
        assert get(query={"limit": 1}).status_code == 200
        with store_lost():
            answer = getattr(CLIENT, method)("/tickers", query)
            assert answer.status_code == 503
            assert answer["Retry-After"] == "2"
            assert answer["Cache-Control"] == "no-store"
            if method == "get":
                assert answer.json()["detail"].startswith("The node's store can't be reached")

    def test_what_is_held_is_served(self, market: Store) -> None:
        assert get(query={"limit": 1}).status_code == 200
        with store_lost():
            assert get(query={"limit": 1}).status_code == 200
            assert get(query={"symbol": "S05", "start_date": "2025-08-15"}).status_code == 200

    def test_in_the_middle_breaks_the_answer_off(
        self, market: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody may take what was sent for the whole market."""
        answer = get()
        parts = iter(answer.streaming_content)
        sent = list(itertools.islice(parts, 1))
        with store_lost(), pytest.raises(redis.RedisError):
            sent += list(parts)
        assert not b"".join(sent).endswith(b"}")
        assert "an answer was broken off" in caplog.text
