"""What pages get and the API doesn't; and database connections, which Django's signals no longer
look after."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from axes.middleware import AxesMiddleware
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string

from proxy_site import middleware
from proxy_site.environment import Environment, SettingsError
from tests.support.bars import a_store, bar, lead
from tests.support.doors import forget
from tickers.verdict import Authority

FOR_ALL = {
    "proxy_site.middleware.ForgottenProxies",
    "proxy_site.middleware.DatabaseConnections",
    "proxy_site.middleware.AllowedHosts",
}


@pytest.fixture(autouse=True)
def node(clean_server: redis.Redis) -> Iterator[None]:
    forget()
    store = a_store(clean_server)
    store.merge([bar()], Authority.CORE, fence=lead(store))
    yield
    forget()


@pytest.mark.parametrize(
    "wanted", [SecurityMiddleware, CsrfViewMiddleware, XFrameOptionsMiddleware, AxesMiddleware]
)
def test_the_protection_that_silenced_checks_look_for_is_there(wanted: type) -> None:
    assert any(
        isinstance(found := import_string(name), type) and issubclass(found, wanted)
        for name in settings.MIDDLEWARE
    )


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/login/", "/nothing", "/static/x"])
def test_pages_have_the_headers_of_pages(client: Client, path: str) -> None:
    answer = client.get(path)
    policy = dict(
        part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' data:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert "camera=()" in answer["Permissions-Policy"]
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.django_db
def test_a_form_without_its_token_is_refused() -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/admin/login/", {"username": "a", "password": "b"}).status_code == 403


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/tickers", "/tickers/group", "/health", "/gossip"])
def test_the_api_says_that_its_json_is_nothing_else(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in answer
    assert not answer.cookies


@pytest.mark.parametrize("prefix", [*middleware.API, *middleware.WITHOUT_DATABASE, "/static"])
def test_the_admin_cant_be_where_it_would_be_taken_for_the_api(prefix: str) -> None:
    """It would have neither session nor database, and none of the headers."""
    for path in (prefix, f"{prefix}-admin/", f"{prefix}/admin"):
        with pytest.raises(SettingsError):
            Environment({"ADMIN_PATH": path}).path("ADMIN_PATH", "admin/")


def test_the_api_passes_by_all_that_only_pages_need() -> None:
    for name in settings.MIDDLEWARE:
        if name not in FOR_ALL:
            assert issubclass(import_string(name), middleware.ForPages), name


RECEIVERS = """
import proxy_site.wsgi
from django.core.signals import request_finished, request_started
for signal in (request_started, request_finished):
    print(*(entry[1]().__module__ for entry in signal.receivers))
"""


def test_a_read_looks_for_no_database_connections(tmp_path: Path) -> None:
    """Else that were a tenth of its time. In a process of its own: Django's test tools connect
    what they find disconnected."""
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "proxy_site.settings",
        "DATA_DIR": str(tmp_path),
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "-c", RECEIVERS], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["django.core.handlers.base"]  # resets the URL configuration


@pytest.mark.parametrize(
    ("path", "looks"), [("/health", 2), ("/public/gossip", 2), ("/tickers", 0), ("/gossip", 0)]
)
def test_broken_and_old_connections_are_closed_around_what_may_use_one(
    monkeypatch: pytest.MonkeyPatch, path: str, looks: int
) -> None:
    """Also when the view fails: its connection may be why."""
    calls: list[str] = []
    monkeypatch.setattr(middleware, "close_old_connections", lambda: calls.append(path))

    def fail(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("the view fails")

    with pytest.raises(RuntimeError):
        middleware.DatabaseConnections(fail)(RequestFactory().get(path))
    assert len(calls) == looks
