"""The middleware runs for people's pages only, since the API needs none of it.

A read is answered from memory in some hundred microseconds. The pages' middleware, and the search
for database connections to close, which a read never opens, took a third of that (measured with
py-spy under gunicorn).
"""

import ipaddress
from collections.abc import Callable
from typing import Any

from axes.middleware import AxesMiddleware
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponsePermanentRedirect,
)
from django.http.request import split_domain_port
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django_otp.middleware import OTPMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from proxy_site import forgotten_proxies

PROBES = ("/livez", "/readyz")
API = ("/tickers", "/gossip", "/public/gossip", "/health", "/openapi.json", *PROBES)
# The home page needs none either.
WITHOUT_DATABASE = ("/tickers", "/gossip", "/openapi.json", *PROBES)


def release_signals() -> None:
    """Disconnect the signals by which Django does for every request what DatabaseConnections does
    for some."""
    request_started.disconnect(reset_queries)  # queries are recorded with DEBUG only
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    request_finished.disconnect(close_caches)  # django-redis keeps its connections on purpose


class DatabaseConnections:
    """A middleware that closes a thread's broken or old database connection, before and after each
    request that may use one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if path == "/" or path.startswith(WITHOUT_DATABASE):
            return self.get_response(request)
        close_old_connections()
        try:
            return self.get_response(request)
        finally:
            close_old_connections()


class ForgottenProxies:
    """A middleware that notes proxies which TRUSTED_PROXIES doesn't name, by any request but a
    probe's, which waits for nothing."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info not in PROBES:
            forgotten_proxies.watch(request.META)
        return self.get_response(request)


class AllowedHosts(CommonMiddleware):
    """Django's middleware, which refuses a Host that ALLOWED_HOSTS doesn't name, but not a probe's.

    Balancers and supervisors ask by an address: /livez and /readyz, which tell nothing, answer to
    any Host, and /health to an IP address or localhost. No page of a browser can claim these: to
    read a node that only its visitor reaches it would have to ask by a name.
    """

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        path = request.path_info
        if path in PROBES or (path == "/health" and _asks_by_address(request)):
            return None
        return super().process_request(request)


def _asks_by_address(request: HttpRequest) -> bool:
    host, _ = split_domain_port(request.META.get("HTTP_HOST") or request.META["SERVER_NAME"])
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class ForPages:
    """A mixin that skips the middleware class after it for the API's paths."""

    get_response: Callable[[HttpRequest], Any]

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith(API):
            return self.get_response(request)
        middleware: Any = super()
        return middleware.__call__(request)


def for_pages(middleware: type) -> type[ForPages]:
    """Return a subclass of ``middleware`` that runs for pages and is skipped for the API.

    Django's settings and checks name middleware by dotted path and look for subclasses, so each
    result needs a name in this module.
    """
    return type(f"Page{middleware.__name__}", (ForPages, middleware), {"__module__": __name__})


# No page has an inline script or style, or loads anything from elsewhere (the home page's JSON is
# data, which the policy doesn't govern).
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
PERMISSIONS_POLICY = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


class PageSecurity(ForPages, SecurityMiddleware):
    """Django's security headers for pages; the API's answers get X-Content-Type-Options only."""

    def __call__(self, request: HttpRequest) -> Any:
        response = super().__call__(request)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Add the pages' headers; Django calls this for pages only."""
        response = super().process_response(request, response)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        return response


PageFiles = for_pages(WhiteNoiseMiddleware)
PageSessions = for_pages(SessionMiddleware)
PageForms = for_pages(CsrfViewMiddleware)
PageLogins = for_pages(AuthenticationMiddleware)
PageMessages = for_pages(MessageMiddleware)
PageFrames = for_pages(XFrameOptionsMiddleware)
PageLockouts = for_pages(AxesMiddleware)
PageSecondFactor = for_pages(OTPMiddleware)
