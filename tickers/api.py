"""The read API: the market, what changed in it, and its sectors."""

import functools
import itertools
import logging
from collections.abc import Iterable, Iterator
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
from tickers.store.records import Change, Position
from tickers.viewset import QuickViewSet

logger = logging.getLogger(__name__)

MAX_LIMIT = 100_000
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
        "The change log doesn't reach back to this position; "
        "read GET /tickers and go on from its ETag."
    )
    default_code = "gone"


class TickersViewSet(QuickViewSet):
    """GET /tickers, /tickers/changes and /tickers/group."""

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Let pages of any origin read every answer, refusals too: the market is public. A refusal
        isn't cached (RFC 9110 lets a 410 be)."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Access-Control-Allow-Origin"] = "*"
        response["Access-Control-Expose-Headers"] = "ETag, Retry-After, X-Data-Age"
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """A browser asks first, for a page that sets If-None-Match itself (Fetch standard, CORS
        preflight)."""
        response = Response(status=status.HTTP_204_NO_CONTENT)
        response["Access-Control-Allow-Methods"] = "GET, HEAD"
        response["Access-Control-Allow-Headers"] = "If-None-Match"
        response["Access-Control-Max-Age"] = "86400"
        return response

    def list(self, request: Request) -> HttpResponseBase:
        """{symbol: [bar, ...]}, every bar unless the parameters choose; 304 by If-None-Match."""
        symbols, selection = selection_of(request.META.get("QUERY_STRING", ""))
        keeper = wiring.snapshots()
        snapshot = keeper.current(at_least=known_position(request.META.get("HTTP_IF_NONE_MATCH")))
        etag = f'W/"{snapshot.position}"'
        response: HttpResponseBase | None = None
        if not CONDITIONS.isdisjoint(request.META):
            response = get_conditional_response(request._request, etag=etag)
        if response is None or response.status_code != status.HTTP_304_NOT_MODIFIED:
            response = market(request, snapshot, symbols, selection)
        response["ETag"] = etag
        response["Cache-Control"] = "public, max-age=1, stale-while-revalidate=30"
        return _aged(response, keeper.age())

    @action(detail=False)
    def changes(self, request: Request) -> HttpResponseBase:
        """{"position", "bars": [bar, ...], "replaced": [symbol, ...]} since a position; trusted
        bars only, each bar once, as it is now. 410 when the log doesn't reach back there."""
        since = parse_position(request.query_params)
        store = wiring.store()
        # First where it stands: of another life's log, which may be long, nothing is asked, nor of
        # one to come, which Redis may have no id for.
        position = store.state().position
        if since.epoch != position.epoch or since.revision > position.revision:
            raise Gone
        state, changes = store.changes_since(since)
        if changes is None:
            raise Gone
        response = _json(_changes_body(state.position, changes))
        response["ETag"] = f'W/"{state.position}"'
        response["Cache-Control"] = "no-store"
        return _aged(response, state.age)

    @action(detail=False)
    def group(self, request: Request) -> HttpResponseBase:
        """{sector: [symbol, ...]} of the universe."""
        response = Response(settings.UNIVERSE.sectors())
        response["Cache-Control"] = "public, max-age=300"
        return response


def selection_of(query_string: str) -> tuple[frozenset[str] | None, Selection]:
    """The query's symbols (None: all) and selection; raises ParseError that names the parameter."""
    # Long ones, of hundreds of symbols, would fill the cache with megabytes.
    parse = parse_selection if len(query_string) < 200 else parse_selection.__wrapped__
    return parse(query_string)


@functools.lru_cache(maxsize=1_000)
def parse_selection(query_string: str) -> tuple[frozenset[str] | None, Selection]:
    query = QueryDict(query_string)
    named = frozenset(symbol.strip().upper() for symbol in query.getlist("symbol"))
    symbols = named - {""} or None
    start, end = _day(query, "start_date"), _day(query, "end_date")
    limit = _limit(query)
    # Existing nodes take all=false as: the last bar only.
    if not _flag(query, "all", default=True) and start is None and end is None and limit is None:
        limit = 1
    authority = query.get("authority", "")
    if authority not in ("", "trusted"):
        raise ParseError("authority must be trusted, or left out.")
    return symbols, Selection(start, end, limit, trusted=authority == "trusted")


def market(
    request: Request, snapshot: Snapshot, symbols: frozenset[str] | None, selection: Selection
) -> HttpResponseBase:
    """The selected bars in the coding that the client prefers, of those that there are."""
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
    """The position that a client has from another process, which may be ahead of this one."""
    try:
        return Position.parse(if_none_match) if if_none_match else None
    except ValueError:
        return None  # several tags, or somebody else's: they match or they don't


def parse_position(query: QueryDict) -> Position:
    try:
        return Position.parse(query.get("since", ""))
    except ValueError:
        raise ParseError(
            "since must be the ETag of GET /tickers, or the position of an earlier answer."
        ) from None


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


def _flag(query: QueryDict, name: str, *, default: bool) -> bool:
    value = query.get(name, "").lower()
    if value not in ("", "true", "1", "false", "0"):
        raise ParseError(f"{name} must be true or false.")
    return default if not value else value in ("true", "1")


def _changes_body(position: Position, changes: Iterable[Change]) -> bytes:
    replaced: dict[str, None] = {}
    bars: dict[tuple[str, bytes], bytes] = {}
    for change in changes:
        if change.what == "replaced":
            replaced[change.symbol] = None
        elif change.bar is not None and change.what != "PUBLIC":
            # Up to the prices, the encoded bar is its symbol and day: the last one stands.
            bars[change.symbol, change.bar.partition(b',"open"')[0]] = change.bar
    kept = [bar for (symbol, _), bar in bars.items() if symbol not in replaced]
    return b'{"position":"%b","bars":[%b],"replaced":[%b]}' % (
        str(position).encode(),
        b",".join(kept),
        b",".join(b'"%b"' % symbol.encode() for symbol in replaced),
    )


def _json(body: bytes, *, headless: bool = False) -> HttpResponse:
    """``headless``: the answer to HEAD, with the length of the body that GET would have."""
    response = HttpResponse(b"" if headless else body, content_type="application/json")
    response["Content-Length"] = str(len(body))
    return response


def _streamed_json(parts: Iterator[bytes], *, headless: bool) -> StreamingHttpResponse:
    """An answer that is sent while it is read. The first part is read here: a store that is away
    then is still an error that can be answered."""
    first = next(parts)
    content = iter(()) if headless else _sent(itertools.chain([first], parts))
    return StreamingHttpResponse(content, content_type="application/json")


def _sent(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts; when one can't be read, the connection breaks, so that nobody takes what was sent
    for the whole."""
    try:
        yield from parts
    except (redis.RedisError, StaleError) as error:
        logger.error("an answer was broken off: the store can't be reached (%s)", error)
        raise


def _aged(response: HttpResponseBase, age: float | None) -> HttpResponseBase:
    if age is not None:
        response["X-Data-Age"] = str(int(age))
    response["Vary"] = "Accept-Encoding"
    return response
