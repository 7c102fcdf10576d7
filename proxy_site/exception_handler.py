"""The answer to an error: {"detail", "code"}, and a status that tells the client what to do."""

import logging
from typing import Any

import redis
from django.conf import settings
from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.db import Error
from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import exception_handler

from proxy_site import reasons, seldom
from tickers.snapshot.snapshot import StaleError

logger = logging.getLogger(__name__)

UNREADABLE, UNREADABLE_CODE = "The request can't be read.", "unreadable_request"
UNKNOWN_HOST = "This node doesn't answer to the name in the Host header."
NOT_MIGRATED = "The node's database isn't set up: its operator must run manage.py migrate."
RETRY_AFTER = "2"  # seconds; a store fails over or restarts within a few
LOG_EVERY = 1.0  # seconds between two lines while something is away
LOG_HOSTS_EVERY = 60.0  # seconds between two lines about wrong Host headers
LONGEST_HOST = 100  # characters of a Host header that are shown


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer for DRF: when the store or the database can't be reached it is a 503, never a 500."""
    unreachable, cause = _unreachable(error)
    if unreachable:
        if seldom.is_due(unreachable, every=LOG_EVERY):
            logger.error("answering 503: %s", _reason(cause))
        detail = f"The node's {unreachable} can't be reached; try again soon."
        if reasons.lacks_tables(cause):
            detail = NOT_MIGRATED
        body = {"detail": detail, "code": f"{unreachable}_unavailable"}
        return Response(body, status=503, headers={"Retry-After": RETRY_AFTER})
    if isinstance(error, SuspiciousOperation):
        # The query has more parameters than Django reads. Django's own answer would lack the
        # headers that the view adds.
        return Response({"detail": UNREADABLE, "code": UNREADABLE_CODE}, status=400)
    if isinstance(error, APIException) and isinstance(error.detail, list):
        error.detail = error.detail[0]
    response = exception_handler(error, context)
    if response is not None and isinstance(error, APIException) and isinstance(response.data, dict):
        response.data["code"] = error.get_codes()
        response.data |= getattr(error, "facts", {})  # of a door's refusal
    return response


def _unreachable(error: BaseException) -> tuple[str, BaseException]:
    """Return "store" or "database", and the exception of the chain that says so; else ""."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, redis.RedisError | StaleError):
            return "store", link
        if isinstance(link, Error):  # an InterfaceError is no DatabaseError
            return "database", link
        link = link.__cause__
    return "", error


def _reason(cause: BaseException) -> str:
    if isinstance(cause, Error):
        return reasons.of_database(cause)
    return reasons.of(cause) or str(cause)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return _answer(f"There is nothing at {request.path}.", "not_found", 404)


def server_error(request: HttpRequest) -> JsonResponse:
    return _answer("The node failed; its log says why.", "server_error", 500)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    detail = UNREADABLE
    if isinstance(exception, DisallowedHost):
        # The operator's own mistake, as often as not: the log always says what it is.
        told = f"the Host header names {_host(request)}, which ALLOWED_HOSTS doesn't"
        if seldom.is_due("host", every=LOG_HOSTS_EVERY):
            logger.warning("answering 400: %s", told)
        detail = UNKNOWN_HOST
        if settings.ENVIRONMENT != "production":
            detail = f"{told[0].upper()}{told[1:]}: use one of the node's names, or add this one."
    return _answer(detail, UNREADABLE_CODE, 400)


def _host(request: HttpRequest) -> str:
    """Return the host that a request asks for, in quotes and printable ASCII."""
    host = request.META.get("HTTP_HOST") or request.META.get("SERVER_NAME", "")
    return ascii(str(host)[:LONGEST_HOST])


def _answer(detail: str, code: str, status: int) -> JsonResponse:
    return JsonResponse({"detail": detail, "code": code}, status=status)
