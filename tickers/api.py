"""The read API serves the market, what changed in it, and its sectors."""

import functools
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    QueryDict,
    StreamingHttpResponse,
)
from django.utils.cache import get_conditional_response
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ParseError
from rest_framework.request import Request
from rest_framework.response import Response

from tickers import wiring
from tickers.bar import BarError, epoch_of, parse_day
from tickers.snapshot.coding import preferred
from tickers.snapshot.snapshot import Selection, Snapshot, StaleError
from tickers.store.records import Position
from tickers.viewset import QuickViewSet

logger = logging.getLogger(__name__)

MAX_LIMIT = 100_000
MARKET_CACHING = "public, max-age=1, stale-while-revalidate=30"
CHANGES_CACHING = "public, max-age=1"
WORTH_COMPRESSING = 1_024  # bytes; a smaller body fits into one packet as it is
CONDITIONS = frozenset(
    {
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_UNMODIFIED_SINCE",
    }
)


class Gone(APIException):
    status_code = status.HTTP_410_GONE
    default_detail = (
        "This position is of another life of the node's store, or to come; "
        "read GET /tickers and go on from its ETag."
    )
    default_code = "gone"


class EmptyMarket(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The market is empty: the node hasn't loaded it yet."
    default_code = "market_empty"
    wait = 5  # seconds after which to ask again; a first load takes some


class TickersViewSet(QuickViewSet):
    """GET /tickers, /tickers/changes and /tickers/group."""

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Let pages of any origin read every answer, since the market is public, and forbid to
        cache a refusal (RFC 9110 allows it for a 410)."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Access-Control-Allow-Origin"] = "*"
        response["Access-Control-Expose-Headers"] = "ETag, Retry-After, X-Data-Age"
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """Answer the CORS preflight (Fetch standard) of a page that sets If-None-Match itself."""
        response = Response(status=status.HTTP_204_NO_CONTENT)
        response["Access-Control-Allow-Methods"] = "GET, HEAD"
        response["Access-Control-Allow-Headers"] = "If-None-Match"
        response["Access-Control-Max-Age"] = "86400"
        return response

    def list(self, request: Request) -> HttpResponseBase:
        """Answer {symbol: [bar, ...]} with the bars that the parameters select, by default all;
        304 by If-None-Match, 503 while the market is empty."""
        symbols, selection = selection_of(request.META.get("QUERY_STRING", ""))
        refresher = wiring.snapshots()
        known = known_position(request.META.get("HTTP_IF_NONE_MATCH"))
        snapshot = refresher.current(at_least=known)
        if known and snapshot.is_before(known) and refresher.may_be_behind:
            # Another process served that position before the store went away; ours is older.
            return _cached(HttpResponse(status=304), known, MARKET_CACHING, refresher.age())
        if not snapshot.series:
            raise EmptyMarket  # a client, a cache or a follower would take {} for a market
        response = _not_modified(request, snapshot.position)
        if response is None:
            response = market(request, snapshot, symbols, selection)
        return _cached(response, snapshot.position, MARKET_CACHING, refresher.age())

    @action(detail=False)
    def changes(self, request: Request) -> HttpResponseBase:
        """Answer {"position", "bars": [bar, ...], "replaced": [symbol, ...], "removed": [symbol,
        ...]}: what changed since a position.

        It has trusted bars only, each once, as it is now. The answer is 410 for a position of
        another life of the store, 503 while the store is away.
        """
        since = parse_position(request.query_params)
        refresher = wiring.snapshots()
        snapshot = refresher.current(at_least=since)
        if since.epoch != snapshot.position.epoch and not refresher.is_away:
            refresher.expire()  # a new life may have begun since the store was asked
            snapshot = refresher.current()
        if refresher.is_away:
            raise StaleError("the store can't be reached, so nobody knows what changed")
        if since.epoch != snapshot.position.epoch:
            raise Gone
        if snapshot.is_before(since):
            if refresher.may_be_behind:
                raise StaleError("the store has begun another life, whose market isn't complete")
            raise Gone
        response = _not_modified(request, snapshot.position)
        if response is None:
            body = snapshot.changes(since.revision, _named(request.query_params))
            response = _compressed(request, body)
        return _cached(response, snapshot.position, CHANGES_CACHING, refresher.age())

    @action(detail=False)
    def group(self, request: Request) -> HttpResponseBase:
        """Answer {sector: [symbol, ...]} of the universe."""
        response = Response(settings.UNIVERSE.sectors())
        response["Cache-Control"] = "public, max-age=300"
        return response


def selection_of(query_string: str) -> tuple[frozenset[str] | None, Selection]:
    """Return the query's symbols (None: all) and selection; a ParseError names the parameter."""
    # Long queries, of hundreds of symbols, would fill the cache with megabytes.
    parse = parse_selection if len(query_string) < 200 else parse_selection.__wrapped__
    return parse(query_string)


@functools.lru_cache(maxsize=1_000)
def parse_selection(query_string: str) -> tuple[frozenset[str] | None, Selection]:
    query = QueryDict(query_string)
    symbols = _named(query)
    start, end = _day(query, "start_date"), _day(query, "end_date")
    limit = _limit(query)
    # all=false means the last bar only, as at existing nodes.
    if not flag(query, "all", default=True) and start is None and end is None and limit is None:
        limit = 1
    authority = query.get("authority", "")
    if authority not in ("", "trusted"):
        raise ParseError("authority must be trusted, or left out.")
    return symbols, Selection(start, end, limit, trusted=authority == "trusted")


def market(
    request: Request, snapshot: Snapshot, symbols: frozenset[str] | None, selection: Selection
) -> HttpResponseBase:
    """Answer the selected bars in the coding that the client prefers."""
    coding = preferred(request.META.get("HTTP_ACCEPT_ENCODING", ""))
    headless = request.method == "HEAD"
    if snapshot.answers_in_parts(symbols, selection):
        parts = snapshot.parts(symbols, selection)
        encoded = coding.stream(parts) if coding else parts
        response: HttpResponseBase = _streamed_json(encoded, headless=headless)
    else:
        packed = snapshot.packed(symbols, selection, coding) if coding else None
        coding = coding if packed else None
        response = _json(packed or snapshot.body(symbols, selection), headless=headless)
    if coding:
        response["Content-Encoding"] = coding.NAME
    return response


def known_position(if_none_match: str | None) -> Position | None:
    """Return the position of a client's ETag, which may come from a process ahead of this one."""
    try:
        return Position.parse(if_none_match) if if_none_match else None
    except ValueError:
        return None  # several tags, or one that isn't ours, can only be compared


def parse_position(query: QueryDict) -> Position:
    try:
        return Position.parse(query.get("since", ""))
    except ValueError:
        raise ParseError(
            "since must be the ETag of GET /tickers, or the position of an earlier answer."
        ) from None


def _named(query: QueryDict) -> frozenset[str] | None:
    """Return the symbols that the query names; None: all."""
    named = frozenset(symbol.strip().upper() for symbol in query.getlist("symbol"))
    return named - {""} or None


def _day(query: QueryDict, name: str) -> int | None:
    value = query.get(name, "")
    if not value:
        return None
    try:
        return epoch_of(parse_day(value))
    except BarError:
        raise ParseError(f"{name} must be a date, YYYY-MM-DD.") from None


def _limit(query: QueryDict) -> int | None:
    value = query.get("limit", "")
    if not value:
        return None
    is_number = value.isascii() and value.isdigit() and len(value) < 10
    if not (is_number and 1 <= int(value) <= MAX_LIMIT):
        raise ParseError(f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    return int(value)


def flag(query: QueryDict, name: str, *, default: bool) -> bool:
    """Read a parameter that is true or false; raise ParseError."""
    value = query.get(name, "").lower()
    if value not in ("", "true", "1", "false", "0"):
        raise ParseError(f"{name} must be true or false.")
    return default if not value else value in ("true", "1")


def _json(body: bytes, *, headless: bool = False) -> HttpResponse:
    """Make a JSON response; ``headless``: one to HEAD, with the length that GET's body has."""
    response = HttpResponse(b"" if headless else body, content_type="application/json")
    response["Content-Length"] = str(len(body))
    return response


def _streamed_json(parts: Iterator[bytes], *, headless: bool) -> StreamingHttpResponse:
    """Make a response that is sent while it is read.

    The first part is read here, so that an error of the store can still be answered.
    """
    first = next(parts)
    content = iter(()) if headless else _sent(itertools.chain([first], parts))
    return StreamingHttpResponse(content, content_type="application/json")


def _sent(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the parts; when one can't be read the connection breaks, so that no client takes what
    was sent for the whole."""
    try:
        yield from parts
    except (redis.RedisError, StaleError) as error:
        logger.error("an answer was broken off: the store can't be reached (%s)", error)
        raise


def _compressed(request: Request, body: bytes) -> HttpResponse:
    """Answer a body that was made for this request, compressed as the client prefers if it is
    large enough."""
    coding = preferred(request.META.get("HTTP_ACCEPT_ENCODING", ""))
    if coding is None or len(body) < WORTH_COMPRESSING:
        return _json(body, headless=request.method == "HEAD")
    packed = b"".join(coding.stream([body]))
    response = _json(packed, headless=request.method == "HEAD")
    response["Content-Encoding"] = coding.NAME
    return response


def _not_modified(request: Request, position: Position) -> HttpResponseBase | None:
    """Return a 304 for a client that has the market at this position, else None."""
    if CONDITIONS.isdisjoint(request.META):
        return None
    response = get_conditional_response(request._request, etag=_etag(position))
    is_304 = response is not None and response.status_code == status.HTTP_304_NOT_MODIFIED
    return response if is_304 else None


def _cached(
    response: HttpResponseBase, position: Position, caching: str, age: float | None
) -> HttpResponseBase:
    """Add the headers that say how long the response may be cached and how old its data is."""
    response["ETag"] = _etag(position)
    response["Cache-Control"] = caching
    if age is not None:
        response["X-Data-Age"] = str(int(age))
    response["Vary"] = "Accept-Encoding"
    return response


def _etag(position: Position) -> str:
    return f'W/"{position}"'
