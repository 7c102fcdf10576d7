"""GET /openapi.json: it is what openapi.yaml says, and that is what the code does."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest
from django.conf import settings
from django.urls import URLPattern

from gossip.wire import MAX_LIST, Code
from proxy_site.management.commands.write_openapi import document, render
from proxy_site.openapi.api_document import FILE
from proxy_site.urls import router
from tests.support import environment
from tests.support.doors import CLIENT, store_away
from tickers.api import MAX_LIMIT
from tickers.bar import MAX_PRICE, MAX_VOLUME
from tickers.verdict import Verdict

DOORS = {"/gossip", "/public/gossip"}


# Codes of refusals that no door of gossip makes.
OTHER_CODES = {
    "parse_error",
    "not_acceptable",
    "not_found",
    "method_not_allowed",
    "gone",
    "market_empty",
    "unreadable_request",
    "store_unavailable",
    "database_unavailable",
    "server_error",
}


class TestFile:
    def test_is_what_the_yaml_says_now(self) -> None:
        assert FILE.read_text(encoding="utf-8") == render(), "run: make openapi"

    def test_names_every_address_of_the_api(self) -> None:
        addresses = {
            "/" + str(pattern.pattern).strip("^$\\Z").replace("\\", "")
            for pattern in router.urls
            if isinstance(pattern, URLPattern)
        }
        assert set(document()["paths"]) == addresses
        assert addresses >= DOORS

    def test_names_every_code_of_a_refusal(self) -> None:
        described = document()["components"]["schemas"]["Code"]["enum"]
        assert sorted(described) == sorted({*Code, *OTHER_CODES})

    def test_names_the_one_method_of_each_address(self) -> None:
        methods = {path: list(item) for path, item in document()["paths"].items()}
        assert methods == {path: ["post"] if path in DOORS else ["get"] for path in methods}

    def test_says_of_every_operation_what_it_is(self) -> None:
        for item in document()["paths"].values():
            for operation in item.values():
                assert operation["summary"]
                assert operation["operationId"]
                assert {"405", "406"} < set(operation["responses"])
                assert all(answer["description"] for answer in operation["responses"].values())

    def test_has_the_name_version_and_license_of_the_project(self) -> None:
        text = (settings.BASE_DIR / "pyproject.toml").read_text("utf-8")
        project = tomllib.loads(text)["project"]
        about = document()["info"]
        assert (about["title"], about["version"]) == (project["name"], project["version"])
        assert about["license"] == {"name": project["license"]}

    def test_has_the_bounds_of_the_code(self) -> None:
        shapes = document()["components"]["schemas"]
        for name in ("Bar", "GossipedBar"):
            fields = shapes[name]["properties"]
            assert {fields[price]["maximum"] for price in ("open", "high", "low", "close")} == {
                MAX_PRICE
            }
            assert fields["volume"]["maximum"] == MAX_VOLUME - 1
        bars, answers = shapes["Gossip"]["oneOf"][1], shapes["Answer"]["oneOf"][1]
        assert bars["maxItems"] == answers["properties"]["results"]["maxItems"] == MAX_LIST
        (limit,) = (
            parameter["schema"]
            for parameter in document()["paths"]["/tickers"]["get"]["parameters"]
            if parameter["name"] == "limit"
        )
        assert limit["maximum"] == MAX_LIMIT

    def test_names_what_becomes_of_a_bar_that_a_door_takes(self) -> None:
        taken, _refused = document()["components"]["schemas"]["Result"]["oneOf"]
        verdicts = {verdict for verdict in Verdict if not verdict.refused}
        # A fetch of our own confirms; no door does.
        assert set(taken["properties"]["verdict"]["enum"]) == verdicts - {Verdict.CONFIRMED}

    def test_depends_on_no_setting_of_a_node(self, settings: Any) -> None:
        before = render()
        settings.MAX_BODY, settings.PUBLIC_BARS, settings.NODE_NAME = 5, "never", "node-a"
        assert render() == before


class TestAnswer:
    def test_is_the_file(self) -> None:
        answer = CLIENT.get("/openapi.json")
        assert answer.status_code == 200
        assert answer.content == FILE.read_bytes()
        assert answer["Content-Type"] == "application/json"
        assert answer.json()["openapi"].startswith("3.1")

    def test_may_be_read_by_any_page_and_kept_a_while(self) -> None:
        answer = CLIENT.get("/openapi.json")
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert answer["Cache-Control"] == "public, max-age=300"
        again = CLIENT.get("/openapi.json", headers={"If-None-Match": answer["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again["Access-Control-Allow-Origin"] == "*"
        assert CLIENT.get("/openapi.json", headers={"If-None-Match": '"x"'}).status_code == 200

    def test_needs_neither_store_nor_database(self, settings: Any) -> None:
        """No database is allowed here, and none is asked."""
        with store_away(settings):
            assert CLIENT.get("/openapi.json").status_code == 200

    @pytest.mark.django_db
    def test_is_found_at_its_own_address_only(self) -> None:
        assert CLIENT.get("/openapi-json").status_code == 404


def test_a_web_process_doesnt_import_what_makes_it() -> None:
    program = (
        "import sys; from django.core.wsgi import get_wsgi_application as make; make();"
        "from django.test import Client; client = Client();"
        "assert client.get('/openapi.json').status_code == 200;"
        "assert client.get('/tickers/group').status_code == 200;"
        "tools = ('proxy_site.management.commands.write_openapi', 'jsonschema');"
        "sys.exit(', '.join(name for name in tools if name in sys.modules) or 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=settings.BASE_DIR,
        env=environment.clean(
            **environment.VARIABLES, DJANGO_SETTINGS_MODULE="proxy_site.settings"
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
