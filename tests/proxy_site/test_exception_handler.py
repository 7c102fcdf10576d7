"""What an error looks like to a client, whatever failed."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import DatabaseError, InterfaceError, OperationalError
from django.test import Client
from rest_framework.exceptions import ValidationError

from gossip import wire as gossip_wire
from proxy_site import seldom
from proxy_site.exception_handler import handle
from tests.support.doors import (
    CLIENT,
    cache_away,
    database_away,
    fill_market,
    forget,
    send_public,
    send_trusted,
    store_away,
    store_lost,
    wire,
)
from tickers import wiring
from tickers.snapshot.snapshot import StaleError
from tickers.store.store import Store

pytestmark = pytest.mark.django_db


@pytest.fixture
def market(clean_server: redis.Redis) -> Iterator[Store]:
    forget()
    fill_market()
    yield wiring.store()
    forget()


def check_shape(answer: Any) -> str:
    """Every error is JSON with one text and one code in it; returns the text."""
    assert answer["Content-Type"] == "application/json"
    body = answer.json()
    assert sorted(body) == ["code", "detail"]
    assert body["code"]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return str(body["detail"])


class TestNothingThere:
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/tickers/",
            "/tickers/VCB",
            "/tickers/group/x",
            "/gossip/",
            "/public",
            "/health/",
            "/%00",
            "/%ff%fe",
            "/\u4e2d\u6587",
            '/<script>"',
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_is_a_404_in_json(self, method: str, path: str, market: Store) -> None:
        answer = CLIENT.generic(method, path)
        assert answer.status_code == 404
        assert check_shape(answer).startswith("There is nothing at /")

    def test_names_the_path(self) -> None:
        assert check_shape(CLIENT.get("/tickers/VCB")) == "There is nothing at /tickers/VCB."


class TestUnreadable:
    def test_a_host_that_isnt_the_nodes(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["api.test"]
        for path in ("/tickers", "/nothing"):
            answer = CLIENT.get(path, headers={"Host": "evil.test"})
            assert answer.status_code == 400
            assert check_shape(answer) == (
                "The Host header names 'evil.test', which ALLOWED_HOSTS doesn't: use one of the "
                "node's names, or add this one."
            )

    def test_a_host_that_isnt_the_nodes_is_named_to_no_stranger_of_production(
        self, settings: Any
    ) -> None:
        settings.ALLOWED_HOSTS, settings.ENVIRONMENT = ["api.test"], "production"
        answer = CLIENT.get("/tickers", headers={"Host": "evil.test"})
        assert check_shape(answer) == "This node doesn't answer to the name in the Host header."

    @pytest.mark.parametrize("environment", ["development", "production"])
    def test_a_host_that_isnt_the_nodes_is_in_the_log_with_the_setting(
        self, environment: str, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.ALLOWED_HOSTS, settings.ENVIRONMENT = ["api.test"], environment
        seldom.forget()
        for _ in range(5):
            CLIENT.get("/tickers", headers={"Host": "evil.test:81"})
        (line,) = [r for r in caplog.records if r.name == "proxy_site.exception_handler"]
        assert line.getMessage() == (
            "answering 400: the Host header names 'evil.test:81', which ALLOWED_HOSTS doesn't"
        )

    @pytest.mark.parametrize(
        "host", ["a\r\n2025 ERROR forged", "\x1b[31m", "\u202e\u4e2d", "a" * 10_000, "%s %d {0}"]
    )
    def test_a_host_forges_no_line_and_fills_no_log(
        self, host: str, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.ALLOWED_HOSTS = ["api.test"]
        seldom.forget()
        answer = CLIENT.get("/tickers", HTTP_HOST=host)
        assert answer.status_code == 400
        (line,) = [r for r in caplog.records if r.name == "proxy_site.exception_handler"]
        for text in (line.getMessage(), check_shape(answer)):
            assert text.isascii()
            assert text.isprintable()
            assert "ALLOWED_HOSTS" in text
            assert len(text) < 300

    def test_more_parameters_than_a_request_may_have(self, market: Store) -> None:
        answer = CLIENT.get("/tickers", {"symbol": ["VCB"] * 1_001})
        assert answer.status_code == 400
        assert check_shape(answer) == "The request can't be read."
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert answer["Cache-Control"] == "no-store"


class TestFailure:
    @pytest.fixture
    def broken(self, market: Store, monkeypatch: pytest.MonkeyPatch) -> Client:
        def fail(body: bytes) -> None:
            raise RuntimeError("the secret of the failure")

        monkeypatch.setattr(gossip_wire, "decode", fail)
        return Client(raise_request_exception=False)

    def test_of_the_node_is_a_500_in_json_that_tells_nothing(
        self, broken: Client, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = settings.PRIMARY_TOKEN
        answer = broken.post(
            "/gossip",
            json.dumps(wire()),
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 500
        assert check_shape(answer) == "The node failed; its log says why."
        assert "the secret of the failure" in caplog.text
        assert token not in caplog.text


class TestAway:
    def check(self, answer: Any, what: str) -> None:
        assert answer.status_code == 503
        assert check_shape(answer) == f"The node's {what} can't be reached; try again soon."
        assert answer["Retry-After"] == "2"

    def test_the_store_is_a_503(self, market: Store, settings: Any) -> None:
        since = f'W/"{market.state().position}"'
        with store_away(settings):
            self.check(CLIENT.get("/tickers"), "store")
            self.check(CLIENT.get("/tickers/changes", {"since": since}), "store")
            self.check(send_trusted(wire()), "store")
            self.check(send_public(wire()), "store")

    def test_the_cache_is_the_store_to_a_client(self, market: Store, settings: Any) -> None:
        with cache_away(settings):
            self.check(send_public(wire()), "store")

    def test_the_database_is_a_503(self, market: Store) -> None:
        with database_away():
            self.check(send_public(wire()), "database")

    def test_what_still_works_does(self, market: Store, settings: Any) -> None:
        CLIENT.get("/tickers")
        with store_lost(), cache_away(settings), database_away():
            assert CLIENT.get("/tickers").status_code == 200
            assert CLIENT.get("/tickers/group").status_code == 200
            assert CLIENT.get("/health").status_code == 200

    def test_is_logged_without_the_token(
        self, market: Store, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        seldom.forget()
        with store_away(settings), caplog.at_level(logging.DEBUG):
            for _ in range(5):
                send_trusted(wire())
        assert caplog.text.count("answering 503: the store can't be reached (Error ") == 1
        assert settings.PRIMARY_TOKEN not in caplog.text

    def test_a_server_that_refuses_writes_is_away(
        self, market: Store, clean_server: redis.Redis
    ) -> None:
        """A full server, under noeviction: writes are refused, reads go on."""
        clean_server.config_set("maxmemory", "1")
        try:
            self.check(send_trusted(wire()), "store")
            self.check(send_public(wire()), "store")
        finally:
            clean_server.config_set("maxmemory", "0")
        assert send_trusted(wire()).status_code == 200


class TestHandler:
    @pytest.mark.parametrize(
        ("error", "what"),
        [
            (redis.ConnectionError("gone"), "store"),
            (redis.TimeoutError("slow"), "store"),
            (redis.ResponseError("OOM"), "store"),
            (StaleError("never read"), "store"),
            (DatabaseError("gone"), "database"),
            (OperationalError("locked"), "database"),
            (InterfaceError("connection already closed"), "database"),
        ],
    )
    def test_finds_what_is_away_under_what_wraps_it(self, error: Exception, what: str) -> None:
        wrapped = RuntimeError("a library's own")
        wrapped.__cause__ = error
        for found in (error, wrapped):
            answer = handle(found, {})
            assert answer is not None
            assert answer.status_code == 503
            assert what in answer.data["detail"]

    def test_leaves_a_bug_to_be_one(self) -> None:
        assert handle(RuntimeError("a bug"), {}) is None

    def test_makes_one_text_of_a_list(self) -> None:
        answer = handle(ValidationError(["the first", "the second"]), {})
        assert answer is not None
        assert (answer.status_code, answer.data) == (
            400,
            {"detail": "the first", "code": "invalid"},
        )
