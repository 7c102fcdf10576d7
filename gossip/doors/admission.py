"""Admission: a door checks the size and form of a request, its sender's rate, the trust window."""

from typing import NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, UnreadablePostError
from django_ratelimit.core import get_usage
from rest_framework import exceptions, status
from rest_framework.request import Request

from gossip import wire
from gossip.errors import Refusal
from gossip.wire import Code
from tickers import wiring

LONGEST_LENGTH = 20  # digits of a Content-Length; Python's int() refuses more than 4,300


def limit_rate(request: Request, actor: str, *, trusted: bool) -> None:
    usage = get_usage(
        request._request,
        group="public-gossip",
        key=lambda group, request: actor,
        rate=settings.TRUSTED_RATE if trusted else settings.PUBLIC_RATE,
        increment=True,
    )
    if usage and usage["should_limit"]:
        raise exceptions.Throttled(max(1, usage["time_left"]), code=Code.RATE_LIMITED.value)


def check_window() -> None:
    """Refuse with 503 outside the trust window: public bars are judged by trusted ones."""
    age = wiring.store().state().age
    if age is None or age > settings.TRUST_WINDOW:
        raise Refusal(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            Code.UNTRUSTED_DATA,
            "System is running on untrusted data",
            retry_after=60,
        )


def check_size(request: Request) -> None:
    if announced(request) > settings.MAX_BODY:
        _too_large()


def announced(request: Request) -> int:
    """Return the body's bytes by Content-Length; 0 without one. Refuses with 400 or 413."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        # gunicorn refuses these itself; behind another server Django would fail on them.
        raise Refusal(
            status.HTTP_400_BAD_REQUEST, Code.INVALID_LENGTH, "Content-Length must be a number."
        )
    if len(length) > LONGEST_LENGTH:
        _too_large()
    return int(length)


def _too_large() -> NoReturn:
    raise Refusal(
        status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        Code.BODY_TOO_LARGE,
        f"A body has at most {settings.MAX_BODY} bytes; send several.",
    )


def _ended_early() -> NoReturn:
    # The client, or a server that waited long enough, ended it: a peer that gets 408 sends again.
    raise Refusal(
        status.HTTP_408_REQUEST_TIMEOUT,
        Code.BODY_INCOMPLETE,
        "The body ended early; send it again.",
    )


def _unsupported(detail: str) -> NoReturn:
    raise Refusal(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, Code.UNSUPPORTED_MEDIA_TYPE, detail)


def read_gossip(request: Request) -> wire.Gossip:
    """Return the request's gossip; refuse with a 4xx when the body as a whole is wrong."""
    check_size(request)
    http_request: HttpRequest = request._request
    if http_request.content_type != "application/json":
        _unsupported("Send Content-Type: application/json")
    if request.META.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        _unsupported("Send the body without compression")
    try:
        body = http_request.body
        if len(body) < announced(request):
            _ended_early()
        return wire.decode(body)
    except RequestDataTooBig:
        _too_large()
    except UnreadablePostError:
        _ended_early()
    except wire.TooLongError as error:
        raise Refusal(
            status.HTTP_413_REQUEST_ENTITY_TOO_LARGE, Code.LIST_TOO_LONG, str(error)
        ) from None
    except wire.WireError as error:
        raise Refusal(status.HTTP_400_BAD_REQUEST, Code.INVALID_BODY, str(error)) from None
