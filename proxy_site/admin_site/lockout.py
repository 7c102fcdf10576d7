"""The lockout of the admin's login: django-axes asks here for a client's address and the answer."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from reputation.address import UnknownClientError, actor_of, client_of


def client_ip(request: HttpRequest) -> str | None:
    """Return the actor's address, of an IPv6 /64 the first one.

    Clients without a known address are None, and are counted together.
    """
    try:
        client = client_of(
            peer=request.META.get("REMOTE_ADDR", ""),
            forwarded_for=request.META.get("HTTP_X_FORWARDED_FOR"),
            trusted_proxies=settings.TRUSTED_PROXIES,
        )
    except UnknownClientError:
        return None
    return actor_of(client).partition("/")[0]


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    minutes = settings.LOGIN_LOCKOUT_MINUTES
    answer = JsonResponse(
        {
            "code": "locked_out",
            "detail": "Too many failed logins from your address; try again in "
            f"{minutes:g} minutes.",
        },
        status=429,
    )
    answer["Retry-After"] = str(round(minutes * 60))
    return answer
