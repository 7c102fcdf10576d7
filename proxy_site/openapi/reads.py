"""What is said of the addresses that are read."""

from drf_spectacular.utils import OpenApiExample, OpenApiResponse

from proxy_site.openapi.parts import (
    AWAY,
    ViewDescription,
    any_origin,
    bare,
    cache_control,
    data_age,
    etag,
    example,
    header,
    parameter,
    retry_after,
    shaped,
)
from proxy_site.openapi.shapes import EXAMPLE_BAR, POSITION
from tickers.api import MAX_LIMIT

# Of an instant the day at the exchange counts.
DAY = {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
ETAG = 'W/"5f0c1d2e3a4b5c6d-1024"'

SYMBOLS = parameter(
    "symbol",
    {"type": "array", "items": {"type": "string"}},
    "Repeatable; all symbols when left out. Its case is folded; an unknown one is left out of "
    "the answer.",
    style="form",
    explode=True,
    examples=[OpenApiExample("Two symbols", value=["VCB", "FPT"])],
)

KNOWN = parameter(
    "If-None-Match",
    {"type": "string"},
    "ETags of answers that the client has.",
    location="header",
    examples=[OpenApiExample("One", value=ETAG)],
)

CHOICE = [
    SYMBOLS,
    parameter(
        "start_date",
        DAY,
        "The first day, inclusive; of a time its day in Asia/Ho_Chi_Minh.",
        examples=[OpenApiExample("Monday", value="2025-08-11")],
    ),
    parameter(
        "end_date",
        DAY,
        "The last day, inclusive; likewise.",
        examples=[OpenApiExample("Friday", value="2025-08-15")],
    ),
    parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
        "The last so many bars of each symbol, of those in the dates.",
        examples=[OpenApiExample("Two", value=2)],
    ),
    parameter(
        "all",
        {"type": "boolean", "default": True},
        "false, with no dates and no limit: the last bar of each symbol.",
    ),
    parameter(
        "authority",
        {"type": "string", "enum": ["trusted"]},
        "trusted: without the public bars that lie over trusted ones.",
    ),
    KNOWN,
]

READ_MARKET = {
    "operation_id": "read_market",
    "tags": ["market"],
    "summary": "The market",
    "description": "{symbol: [bar, ...]}: every bar, unless the parameters choose.",
    "parameters": [
        *CHOICE,
        etag(200, 304),
        data_age(200, 304),
        cache_control(200, 304),
        any_origin(200, 304, 400, 406, 503),
        retry_after(503),
    ],
    "responses": {
        200: shaped("Market", "The chosen bars."),
        304: bare("The market is as If-None-Match has it."),
        400: "A parameter is wrong; the detail names it.",
        503: "The process has no market yet and can't reach the store.",
    },
    "examples": [example("VCB", {"VCB": [EXAMPLE_BAR]})],
}

READ_CHANGES = {
    "operation_id": "read_changes",
    "tags": ["market"],
    "summary": "What changed since",
    "description": "Trusted bars that changed after a position, and where to go on from.",
    "parameters": [
        parameter(
            "since",
            {"type": "string", "pattern": f'^(W/)?"?{POSITION}"?$'},
            "The ETag of GET /tickers, or the position of an earlier answer.",
            required=True,
            examples=[OpenApiExample("An ETag", value=ETAG)],
        ),
        SYMBOLS,
        KNOWN,
        etag(200, 304),
        data_age(200, 304),
        cache_control(200, 304),
        any_origin(200, 304, 400, 406, 410, 503),
        retry_after(503),
    ],
    "responses": {
        200: shaped("Changes", "What changed; possibly nothing."),
        304: bare("The market is as If-None-Match has it."),
        400: "since is missing or no position.",
        410: "The position is of another life of the store, or to come: read "
        "GET /tickers?authority=trusted and go on from its ETag.",
        503: AWAY,
    },
    "examples": [
        example(
            "One bar",
            {
                "position": "5f0c1d2e3a4b5c6d-1025",
                "bars": [EXAMPLE_BAR],
                "replaced": [],
                "removed": [],
            },
        )
    ],
}

READ_SECTORS = {
    "operation_id": "read_sectors",
    "tags": ["market"],
    "summary": "The universe by sector",
    "description": "{sector: [symbol, ...]}.",
    "parameters": [cache_control(200), any_origin(200, 406)],
    "responses": {200: shaped("Sectors", "Every sector with its symbols.")},
}

READ_HEALTH = {
    "operation_id": "read_health",
    "tags": ["node"],
    "summary": "What the node knows of itself",
    "parameters": [cache_control(200, 503)],
    "responses": {
        200: shaped("Health", "It can serve reads, whatever else is wrong."),
        503: shaped("Health", "It can't."),
    },
}

READ_API_DOCUMENT = {
    "operation_id": "read_api_document",
    "tags": ["node"],
    "summary": "This document",
    "parameters": [
        parameter("If-None-Match", {"type": "string"}, "ETags.", location="header"),
        header("ETag", "Changes with the document.", 200, 304),
        cache_control(200, 304),
        any_origin(200, 304),
    ],
    "responses": {
        200: OpenApiResponse({"type": "object"}, "OpenAPI 3.1."),
        304: bare("The document is as If-None-Match has it."),
    },
}


class Tickers(ViewDescription):
    target_class = "tickers.api.TickersViewSet"
    actions = {"list": READ_MARKET, "changes": READ_CHANGES, "group": READ_SECTORS}


class Health(ViewDescription):
    target_class = "proxy_site.health.Health"
    actions = {"list": READ_HEALTH}


class ApiDocument(ViewDescription):
    target_class = "proxy_site.openapi.api_document.ApiDocument"
    actions = {"list": READ_API_DOCUMENT}


EXTENSIONS = (Tickers, Health, ApiDocument)
