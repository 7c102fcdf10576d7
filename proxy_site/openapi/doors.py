"""What is said of the two doors."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample

from gossip.wire import MAX_LIST
from proxy_site.openapi.parts import AWAY, ViewDescription, example, header, retry_after, shaped
from proxy_site.openapi.shapes import EXAMPLE_BAR, Shape, ref

BODY = {"application/json": ref("Gossip")}
BODIES = [
    OpenApiExample("One bar", EXAMPLE_BAR, request_only=True),
    OpenApiExample("A list", [EXAMPLE_BAR], request_only=True),
]
TAKEN = shaped("Answer", "What became of the bar, or of each bar of a list.")
NOT_A_BAR = "Not JSON, no bar, or a list without a valid bar."
TOO_LARGE = f"The body is over 1 MB, or a list over {MAX_LIST:,} bars."
ENDED_EARLY = "The body is shorter than its Content-Length, or came too slowly; send it again."
NOT_JSON = "Another content type than application/json, or a compressed body."

SEND_TRUSTED = {
    "operation_id": "send_trusted",
    "tags": ["gossip"],
    "summary": "Bars of peers with the token",
    "description": "Merged at once: peers are believed.",
    "parameters": [
        retry_after(429, 503),
        header("WWW-Authenticate", "Names the scheme.", 401),
    ],
    "request": BODY,
    "responses": {
        200: TAKEN,
        400: NOT_A_BAR,
        401: "The token is missing or wrong.",
        408: ENDED_EARLY,
        413: TOO_LARGE,
        415: NOT_JSON,
        422: "Of no use here: of a day to come, of one before the node's history begins, or of one "
        "symbol too many.",
        429: "Too many wrong tokens from this address.",
        503: AWAY,
    },
    "examples": [*BODIES, example("Stored", {"symbol": "VCB", "verdict": "added"})],
}

SEND_PUBLIC = {
    "operation_id": "send_public",
    "tags": ["gossip"],
    "summary": "Bars of anyone",
    "description": "Judged by the last trusted close, and served over the trusted bar of the "
    "current trading day without replacing it.",
    "parameters": [retry_after(429, 503)],
    "request": BODY,
    "responses": {
        200: TAKEN,
        202: shaped("Answer", "Held until somebody else says the same."),
        400: f"{NOT_A_BAR} Or a price is implausible, which counts against the sender.",
        403: "The sender is banned.",
        408: ENDED_EARLY,
        413: TOO_LARGE,
        415: NOT_JSON,
        422: "Of no use here: an unknown symbol, another day, a smaller volume than what is "
        "served. Doesn't count against the sender.",
        429: "Over the rate; a list is one request.",
        503: "No trusted update has come within the trust window, or what the node needs can't be "
        "reached.",
    },
    "examples": [
        *BODIES,
        example("Served", {"symbol": "VCB", "verdict": "laid"}),
        example("Held", {"symbol": "VCB", "verdict": "held"}, 202),
    ],
}


class Token(OpenApiAuthenticationExtension):
    target_class = "gossip.doors.views.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> Shape:
        return {"type": "http", "scheme": "bearer", "description": "Peers of a network share it."}


class TokenDoor(ViewDescription):
    target_class = "gossip.doors.views.TrustedGossip"
    actions = {"create": SEND_TRUSTED}


class PublicDoor(ViewDescription):
    target_class = "gossip.doors.views.PublicGossip"
    actions = {"create": SEND_PUBLIC}


EXTENSIONS = (Token, TokenDoor, PublicDoor)
