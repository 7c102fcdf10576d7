"""Every address answers what /openapi.json says, to requests that keep to it and to others."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.conf import settings as node_settings
from django.core.handlers.wsgi import WSGIHandler
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection

from tests.support.checks import DOCUMENT, check_documented, check_market
from tests.support.doors import CLIENT, send, send_public, send_trusted, store_away, wire
from tickers.store.store import Store

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("unlimited")]

READS = [
    *("/tickers", "/tickers/changes", "/tickers/group"),
    *("/health", "/livez", "/readyz", "/openapi.json"),
]
NEED_A_MARKET = ("/tickers", "/health", "/readyz")
TOMORROW = dt.date(2025, 8, 16)  # by the tests' market clock

API = schemathesis.openapi.from_wsgi("/openapi.json", WSGIHandler())
API.config.generation.update(modes=list(schemathesis.GenerationMode), deterministic=True)
# What JSON Schema can't say of a valid request: that a close lies between low and high (400), that
# a bar is of use here (422), that a position is of this life of the store (410).
API.config.checks.positive_data_acceptance.expected_statuses += ["400", "410", "422"]
# A list that is too long (413); a position of letters that no epoch has (410).
API.config.checks.negative_data_rejection.expected_statuses += ["413", "410"]


def bounded(examples: int) -> hypothesis_settings:
    """So many random requests an operation, the same every time, besides those at the bounds."""
    return hypothesis_settings(
        deadline=None,
        max_examples=examples,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def ask(
    case: schemathesis.Case[Any], *, token: str | None, excluded: list[Any] | None = None
) -> int:
    """Send it, and check the answer against the description; returns the status."""
    # Wrong tokens have a test of their own: here they would use up what an address may try.
    excluded = [ignored_auth, *(excluded or [])]
    query = (case.query or {}).values()
    if any(value == "" or isinstance(value, list | dict) for value in query):
        # An empty value is as if left out, and of one that stands twice the last counts.
        excluded.append(negative_data_rejection)
    # Schemathesis doesn't decompress what it reads from a WSGI application.
    headers = {"Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    answer = case.call_and_validate(headers=headers, excluded_checks=excluded)
    return int(answer.status_code)


@API.parametrize()
@bounded(40)
def test_every_operation_answers_as_described(case: schemathesis.Case[Any], market: Store) -> None:
    ask(case, token=node_settings.PRIMARY_TOKEN)
    check_market(market)


@pytest.mark.slow
@API.parametrize()
@bounded(300)
def test_every_operation_answers_as_described_to_many(
    case: schemathesis.Case[Any], market: Store
) -> None:
    ask(case, token=node_settings.SECONDARY_TOKEN)
    check_market(market)


@API.include(path="/gossip").parametrize()
@bounded(40)
@pytest.mark.parametrize("token", ["wrong-token", ""])
def test_without_the_token_nothing_is_taken(
    case: schemathesis.Case[Any], token: str, market: Store
) -> None:
    before = market.state().position
    assert ask(case, token=token) in (401, 406, 429)
    assert market.state().position == before


class TestStoreAway:
    @pytest.fixture
    def nothing_reached(self, market: Store, settings: Any) -> Iterator[None]:
        with store_away(settings):
            yield

    @API.parametrize()
    @bounded(15)
    def test_every_operation_answers_as_described(
        self, case: schemathesis.Case[Any], nothing_reached: None
    ) -> None:
        token = node_settings.PRIMARY_TOKEN
        assert ask(case, token=token, excluded=[not_a_server_error]) in (*range(200, 500), 503)


class TestStates:
    """What no request by itself brings about."""

    def test_a_market_and_what_changed_in_it(self, market: Store) -> None:
        since = str(market.state().position)
        check_documented(send_trusted(wire()), "/gossip")
        check_documented(send_public(wire(price=65_000)), "/public/gossip")
        for headers in ({}, {"If-None-Match": CLIENT.get("/tickers")["ETag"]}):
            answer = CLIENT.get("/tickers", headers=headers)
            assert answer.status_code == (304 if headers else 200)
            check_documented(answer, "/tickers", "get")
        answer = CLIENT.get("/tickers/changes", {"since": since})
        assert len(answer.json()["bars"]) == 1
        check_documented(answer, "/tickers/changes", "get")

    def test_a_market_before_anything_came(self, empty_market: Store) -> None:
        for path in READS:
            query = {"since": str(empty_market.state().position)} if "changes" in path else {}
            answer = CLIENT.get(path, query)
            assert answer.status_code == (503 if path in NEED_A_MARKET else 200)
            check_documented(answer, path, "get")
        answer = send_public(wire())
        assert answer.status_code == 503
        check_documented(answer, "/public/gossip")

    def test_a_sender_that_is_limited_or_banned(self, market: Store, settings: Any) -> None:
        settings.PUBLIC_RATE, settings.BAN_AFTER_FAILURES = "2/h", 0
        statuses = []
        for _ in range(3):
            answer = send_public(wire(price=99_000))
            check_documented(answer, "/public/gossip")
            statuses.append(answer.status_code)
        assert statuses == [400, 403, 429]

    def test_lists_of_good_and_bad(self, market: Store) -> None:
        mixed = [wire(), wire("PVS", price=99_000), wire("ZZZ"), wire(volume=-1), 7, None]
        for answer, path in (
            (send_trusted(mixed), "/gossip"),
            (send_public(mixed), "/public/gossip"),
        ):
            assert answer.status_code == 200
            assert len(answer.json()["results"]) == len(mixed)
            check_documented(answer, path)

    @pytest.mark.parametrize("path", ["/gossip", "/public/gossip"])
    @pytest.mark.parametrize(
        ("options", "status"),
        [
            ({"content_type": "text/plain"}, 415),
            ({"body": b" " * 1_000_001}, 413),
            ({"HTTP_ACCEPT": "text/html"}, 406),
            ({"body": [wire(day=TOMORROW)]}, 422),
        ],
    )
    def test_a_door_that_refuses(
        self, path: str, options: dict[str, Any], status: int, market: Store
    ) -> None:
        headers = {"Authorization": f"Bearer {node_settings.PRIMARY_TOKEN}"}
        answer = send(path, **{"body": wire(), "headers": headers, **options})
        assert answer.status_code == status
        check_documented(answer, path)

    @pytest.mark.parametrize("path", READS)
    def test_a_read_that_is_refused(self, path: str, market: Store) -> None:
        for status, answer in (
            (406, CLIENT.get(path, headers={"Accept": "text/html"})),
            (405, CLIENT.delete(path)),
        ):
            assert answer.status_code == status
            check_documented(answer, path, "get")

    def test_more_parameters_than_a_request_may_have(self, market: Store) -> None:
        answer = CLIENT.get("/tickers", {"symbol": ["VCB"] * 1_001})
        assert answer.status_code == 400
        check_documented(answer, "/tickers", "get")


def examples() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(where it stands, the example, the schema it is an example of)."""
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                media = body.get("content", {}).get("application/json", {})
                for name, example in media.get("examples", {}).items():
                    yield f"{path} {name}", example["value"], media["schema"]
            for parameter in operation.get("parameters", []):
                for name, example in parameter.get("examples", {}).items():
                    where = f"{path} {parameter['name']} {name}"
                    yield where, example["value"], parameter["schema"]
    for name, shape in DOCUMENT["components"]["schemas"].items():
        if "example" in shape:
            yield name, shape["example"], shape


class TestDocument:
    def test_is_valid(self) -> None:
        API.validate()

    @pytest.mark.parametrize(("where", "value", "schema"), list(examples()))
    def test_an_example_is_of_the_shape_that_it_shows(
        self, where: str, value: object, schema: dict[str, Any]
    ) -> None:
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)
