"""Settings: what each is by default, what each refuses, and that the example files tell the truth.

Most load proxy_site/settings.py in this process, with an environment of the test's own; what must
hold of a process that starts (one line, no traceback, an exit status) starts one.
"""

import ast
import contextlib
import datetime as dt
import difflib
import os
import random
import re
import runpy
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote
from zoneinfo import ZoneInfo

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_site.env_file import PROXY_NAMES, VERY_ALIKE
from proxy_site.environment import (
    Environment,
    SettingsError,
    is_weak,
    next_database,
    same_database,
)
from tests.support.environment import clean

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "proxy_site" / "settings.py"
CORE_EXAMPLE = ROOT / ".env.example"
PUBLIC_EXAMPLE = ROOT / ".env.public.example"

TOKENS = {"PRIMARY_TOKEN": "correct-horse-battery", "SECONDARY_TOKEN": "staple-of-the-exchange"}
SECRET_KEY = "Zq7-settings-test-key-0123456789-abcdefghijklmnopqrstuvwxyz"
STAGING = {"ENVIRONMENT": "staging", "ALLOWED_HOSTS": "api.test", "SECRET_KEY": SECRET_KEY}
PRODUCTION = STAGING | {
    "ENVIRONMENT": "production",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "INTERNAL_PEER_URLS": "",
}


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTINGS_TEST_DATA", str(tmp_path / "data"))


def load(variables: dict[str, str] | None = None, *, without: str = "") -> dict[str, Any]:
    """The settings of a node with valid tokens and these variables."""
    all_variables = {"DATA_DIR": os.environ["SETTINGS_TEST_DATA"], **TOKENS, **(variables or {})}
    all_variables.pop(without, None)
    with mock.patch.dict(os.environ, clean(**all_variables), clear=True):
        namespace = runpy.run_path(str(SETTINGS))
    return {name: value for name, value in namespace.items() if name.isupper()}


def refusal(variables: dict[str, str], *, without: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(variables, without=without)
    line = str(caught.value)
    assert "\n" not in line
    return line


def assert_refused(
    variables: dict[str, str], name: str, problem: str, *, without: str = ""
) -> None:
    line = refusal(variables, without=without)
    assert line.startswith(f"aipriceaction-proxy: {name} ")
    assert problem in line
    assert f"Example: {name}=" in line


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A real process with nothing of the tests' environment but what finds the programs."""
    environment = clean(DATA_DIR=os.environ["SETTINGS_TEST_DATA"], **variables)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestDefaults:
    """Of a node that is given two tokens and nothing else."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ENVIRONMENT", "development"),
            ("NODE_NAME", "aipriceaction-proxy"),
            ("PORT", 3000),
            ("BIND", ["127.0.0.1:3000"]),
            ("ALLOWED_HOSTS", ["*"]),
            ("CORE_NETWORK_URLS", []),
            ("IS_PUBLIC_NODE", False),
            ("INTERNAL_PEER_URLS", []),
            ("PUBLIC_PEER_URLS", []),
            ("PUBLIC_REFRESH_INTERVAL", 300),
            ("CORE_WORKER_INTERVAL", 5),
            ("NON_OFFICE_HOURS_INTERVAL", 300),
            ("VCI_BASE_URLS", ["https://trading.vietcap.com.vn/api/"]),
            ("VCI_RATE_LIMIT", 30),
            ("VCI_BATCH_SIZE", 50),
            ("MAX_SYMBOLS", 3000),
            ("SNAPSHOT_MEMORY", 512),
            ("HISTORY_START", dt.date(2024, 1, 1)),
            ("DEBUG_SYSTEM_TIME", None),
            ("TRUST_WINDOW", 300),
            ("MAX_PRICE_CHANGE", 0.10),
            ("PUBLIC_BARS", "immediate"),
            ("INDEPENDENT_IPV6_PREFIX", 64),
            ("CLAIMS_PER_HOUR", 10),
            ("BAN_AFTER_FAILURES", 5),
            ("FAILURE_HALF_LIFE", 24),
            ("BAN_HOURS", 24),
            ("MAX_BAN_HOURS", 720),
            ("TRUST_AFTER_CONFIRMED", 100),
            ("CONFIRMED_HALF_LIFE", 336),
            ("KEEP_HOURLY_COUNTS", 30),
            ("KEEP_IDLE_ACTORS", 90),
            ("KEEP_HISTORY", 730),
            ("PUBLIC_RATE", "20/2s"),
            ("TRUSTED_RATE", "100/2s"),
            ("TRUSTED_PROXIES", []),
            ("TOKEN_FAILURE_RATE", "10/1m"),
            ("ADMIN_PATH", "admin/"),
            ("ADMIN_SECOND_FACTOR", False),
            ("LOGIN_FAILURES", 5),
            ("LOGIN_LOCKOUT_MINUTES", 15),
            ("CSRF_TRUSTED_ORIGINS", []),
            ("LOG_LEVEL", "INFO"),
            ("DEBUG", False),
            ("USES_EMBEDDED_SERVER", True),
        ],
    )
    def test_in_development(self, name: str, value: object) -> None:
        assert load()[name] == value

    def test_office_hours_are_the_exchanges(self) -> None:
        hours = load()["OFFICE_HOURS"]
        assert hours.enabled is True
        assert (hours.start, hours.end) == (dt.time(9), dt.time(15))
        assert hours.zone == ZoneInfo("Asia/Ho_Chi_Minh")

    def test_the_whole_universe_is_known(self) -> None:
        assert len(load()["UNIVERSE"]) == 287

    def test_development_has_an_embedded_server_and_a_cache_beside_it(self, tmp_path: Path) -> None:
        settings = load({"DATA_DIR": str(tmp_path)})
        assert settings["REDIS_URL"].startswith("unix:///")
        assert settings["REDIS_URL"].endswith("?db=0")
        assert settings["CACHE_URL"] == settings["REDIS_URL"].replace("db=0", "db=1")
        assert settings["CACHES"]["default"]["LOCATION"] == settings["CACHE_URL"]

    @pytest.mark.parametrize(
        ("bind", "expected"),
        [
            ("0.0.0.0", ["0.0.0.0:4000"]),
            ("::", ["[::]:4000"]),
            ("[::1], 127.0.0.1,::1", ["[::1]:4000", "127.0.0.1:4000"]),
            ("unix:/run/a node/api.sock", ["unix:/run/a node/api.sock"]),
            ("/run/api.sock,127.0.0.1", ["unix:/run/api.sock", "127.0.0.1:4000"]),
        ],
    )
    def test_bind_goes_with_the_port(self, bind: str, expected: list[str]) -> None:
        assert load({"BIND": bind, "PORT": "4000"})["BIND"] == expected

    def test_reputation_is_in_a_sqlite_file_in_the_data_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "c++ & 100%"
        database = load({"DATA_DIR": str(folder)})["DATABASES"]["default"]
        assert database["ENGINE"] == "django.db.backends.sqlite3"
        assert database["NAME"] == str(folder / "reputation.sqlite3")
        assert "journal_mode=WAL" in database["OPTIONS"]["init_command"]
        assert folder.is_dir()

    def test_data_is_kept_in_the_checkout(self) -> None:
        assert load(without="DATA_DIR")["DATA_DIR"] == ROOT / "var"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PUBLIC_PEER_URLS", ["https://api.aipriceaction.com"]),
            ("INTERNAL_PEER_URLS", []),
            ("CACHE_URL", "redis://127.0.0.1:9/1"),
            ("USES_EMBEDDED_SERVER", False),
            ("SECURE_SSL_REDIRECT", True),
            ("SECURE_HSTS_SECONDS", 31_536_000),
            ("SECURE_HSTS_INCLUDE_SUBDOMAINS", False),
            ("SECURE_HSTS_PRELOAD", False),
            ("SESSION_COOKIE_SECURE", True),
            ("DEBUG", False),
        ],
    )
    def test_in_production(self, name: str, value: object) -> None:
        assert load(PRODUCTION)[name] == value

    @pytest.mark.parametrize(
        "name",
        [
            "NODE_NAME",
            "UNIVERSE_FILE",
            "TICKERS",
            "VCI_BASE_URL",
            "DATABASE_URL",
            "CACHE_URL",
            "REDIS_URL",
            "DEBUG_SYSTEM_TIME",
            "CORE_NETWORK_URL",
            "TRUSTED_PROXIES",
            "BIND",
        ],
    )
    def test_empty_is_as_good_as_unset(self, name: str) -> None:
        assert comparable(load({name: ""})) == comparable(load())


class TestMode:
    def test_a_core_network_makes_a_public_node(self) -> None:
        settings = load({"CORE_NETWORK_URL": "https://a.test/, https://b.test"})
        assert settings["IS_PUBLIC_NODE"] is True
        assert settings["CORE_NETWORK_URLS"] == ["https://a.test", "https://b.test"]

    @pytest.mark.parametrize("variables", [{}, {"CORE_NETWORK_URL": ""}, {"CORE_NETWORK_URL": " "}])
    def test_none_makes_a_core_node(self, variables: dict[str, str]) -> None:
        assert load(variables)["IS_PUBLIC_NODE"] is False

    @pytest.mark.parametrize("kind", ["development", "staging"])
    def test_the_default_public_peer_is_sent_to_in_production_only(self, kind: str) -> None:
        assert load(STAGING | {"ENVIRONMENT": kind})["PUBLIC_PEER_URLS"] == []
        assert load(PRODUCTION)["PUBLIC_PEER_URLS"] == ["https://api.aipriceaction.com"]

    def test_named_public_peers_are_sent_to_everywhere(self) -> None:
        named = {"PUBLIC_PEER_URLS": "https://peer.test/"}
        assert load(named)["PUBLIC_PEER_URLS"] == ["https://peer.test"]
        assert load(PRODUCTION | named)["PUBLIC_PEER_URLS"] == ["https://peer.test"]

    def test_empty_public_peers_are_none_in_production(self) -> None:
        assert load(PRODUCTION | {"PUBLIC_PEER_URLS": ""})["PUBLIC_PEER_URLS"] == []

    def test_a_core_node_in_production_says_who_its_internal_peers_are(self) -> None:
        assert_refused(
            PRODUCTION, "INTERNAL_PEER_URLS", "must be set", without="INTERNAL_PEER_URLS"
        )
        assert load(PRODUCTION | {"INTERNAL_PEER_URLS": ""})["INTERNAL_PEER_URLS"] == []
        public = PRODUCTION | {"CORE_NETWORK_URL": "https://core.test"}
        assert load(public, without="INTERNAL_PEER_URLS")["IS_PUBLIC_NODE"] is True

    def test_the_market_clock_is_not_frozen_in_production(self) -> None:
        frozen = {"DEBUG_SYSTEM_TIME": "2025-08-15T10:00:00+07:00"}
        moment = dt.datetime(2025, 8, 15, 3, tzinfo=dt.UTC)
        assert load(frozen)["DEBUG_SYSTEM_TIME"] == moment
        assert load(STAGING | frozen)["DEBUG_SYSTEM_TIME"] == moment
        assert load(PRODUCTION | frozen)["DEBUG_SYSTEM_TIME"] is None


class TestEnvironmentFile:
    def write(self, folder: Path, *lines: str) -> Path:
        file = folder / "node.env"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    def test_the_real_environment_beats_it(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "NODE_NAME=from the file", "PORT=4000", "ENVIRONMENT=staging")
        variables = STAGING | {"ENV_FILE": str(file), "NODE_NAME": "from the environment"}
        settings = load(variables, without="ENVIRONMENT")
        assert settings["NODE_NAME"] == "from the environment"
        assert settings["PORT"] == 4000
        assert settings["ENVIRONMENT"] == "staging"

    def test_a_variable_that_is_set_empty_beats_it_too(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "CORE_NETWORK_URL=https://core.test")
        assert load({"ENV_FILE": str(file)})["IS_PUBLIC_NODE"] is True
        assert load({"ENV_FILE": str(file), "CORE_NETWORK_URL": ""})["IS_PUBLIC_NODE"] is False

    def test_it_does_not_reach_the_processes_own_environment(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "NODE_NAME=from the file")
        assert Environment({}, file).text("NODE_NAME") == "from the file"
        assert "NODE_NAME" not in os.environ
        assert Environment({}).text("NODE_NAME") == ""

    def test_a_secret_may_begin_with_a_dollar_sign(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "SECONDARY_TOKEN='$PRIMARY_TOKEN'", "PRIMARY_TOKEN=$dollar")
        settings = load(
            {"ENV_FILE": str(file), "SECRET_KEY": "$SECRET_KEY"}, without="PRIMARY_TOKEN"
        )
        assert settings["PRIMARY_TOKEN"] == "$dollar"
        assert settings["SECRET_KEY"] == "$SECRET_KEY"

    def test_a_line_that_sets_nothing_is_refused_unseen(self, tmp_path: Path) -> None:
        file = self.write(tmp_path, "# a comment", "", "PRIMARY_TOKEN = hunter2-hunter2-hunter2")
        done = run("-c", "import proxy_site.settings", ENV_FILE=str(file), **TOKENS)
        assert done.returncode != 0
        assert done.stderr.count("\n") == 1
        assert f"line 3 of {file} isn't NAME=value" in done.stderr
        assert "hunter2" not in done.stderr + done.stdout

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        assert_refused({"ENV_FILE": str(tmp_path / "none")}, "ENV_FILE", "names no file")


LONG = "x7" * 20
HEX = "9f86d081884c7d659a2feaa0c55ad015"
BARE = ["p@ss/w#rd", "p#ss", "p/ss", "p?ss", "p[ss", "p ss"]
BAD_URLS = [
    "core.test",
    "ftp://core.test",
    "https://",
    "https:/core.test",
    "https://core.test:99999",
    "https://core.test:port",
    "https://[::1",
    "https://core test",
    "https://core.test?x=1",
    "https://core.test#x",
    "//core.test",
]
REFUSALS: list[tuple[dict[str, str], str, str]] = [
    ({"PRIMARY_TOKEN": ""}, "PRIMARY_TOKEN", "is missing"),
    ({"SECONDARY_TOKEN": "  "}, "SECONDARY_TOKEN", "is missing"),
    ({"PRIMARY_TOKEN": "same-token", "SECONDARY_TOKEN": "same-token"}, "SECONDARY_TOKEN", "equals"),
    ({"PRIMARY_TOKEN": "two words"}, "PRIMARY_TOKEN", "without spaces"),
    ({"PRIMARY_TOKEN": "mật-khẩu-của-tôi-dài"}, "PRIMARY_TOKEN", "ASCII"),
    (STAGING | {"PRIMARY_TOKEN": "fifteen-letters"}, "PRIMARY_TOKEN", "shorter than 16"),
    (PRODUCTION | {"SECONDARY_TOKEN": "short"}, "SECONDARY_TOKEN", "shorter than 16"),
    (STAGING | {"PRIMARY_TOKEN": f"change-me-{LONG}"}, "PRIMARY_TOKEN", "example"),
    (STAGING | {"SECRET_KEY": ""}, "SECRET_KEY", "is missing"),
    (PRODUCTION | {"SECRET_KEY": ""}, "SECRET_KEY", "is missing"),
    (STAGING | {"SECRET_KEY": SECRET_KEY[:49]}, "SECRET_KEY", "at least 50"),
    (PRODUCTION | {"SECRET_KEY": "abc" * 30}, "SECRET_KEY", "not all alike"),
    (STAGING | {"SECRET_KEY": "change-me"}, "SECRET_KEY", "example"),
    (STAGING | {"SECRET_KEY": f"django-insecure-{SECRET_KEY}"}, "SECRET_KEY", "example"),
    ({"ENVIRONMENT": "prod"}, "ENVIRONMENT", "one of development, staging, production"),
    ({"ENVIRONMENT": ""}, "ENVIRONMENT", "one of"),
    (PRODUCTION | {"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS", "is missing"),
    *(
        ({"PROBLEM_WEBHOOK": url}, "PROBLEM_WEBHOOK", "must be an http")
        for url in ("chat.test/hook", "ftp://chat.test", "https://", "https://a.test/?a b", "/hook")
    ),
    ({"PROBLEM_WEBHOOK": "https://a.test/x?k=1#y"}, "PROBLEM_WEBHOOK", "must be an http"),
    ({"PROBLEM_WEBHOOK": "https://u:p@a.test/x"}, "PROBLEM_WEBHOOK", "user or password"),
    *(
        ({"ALLOWED_HOSTS": hosts}, "ALLOWED_HOSTS", "must be names without https://")
        for hosts in (
            "https://api.test",
            "api.test,http://api.test",
            "api.test:443",
            "api.test/tickers",
            "//api.test",
            "*.api.test",
            "api.test api2.test",
            "api.test.",
            "::1",
            "my_node",
        )
    ),
    ({"ALLOWED_HOSTS": "'api.test'"}, "ALLOWED_HOSTS", "has quotes around its value"),
    (PRODUCTION | {"REDIS_URL": ""}, "REDIS_URL", "is missing"),
    *(({"CORE_NETWORK_URL": url}, "CORE_NETWORK_URL", "must be an http") for url in BAD_URLS),
    ({"INTERNAL_PEER_URLS": "https://a.test,b"}, "INTERNAL_PEER_URLS", "must be an http"),
    ({"PUBLIC_PEER_URLS": "https://a.test b.test"}, "PUBLIC_PEER_URLS", "must be an http"),
    ({"VCI_BASE_URL": "trading"}, "VCI_BASE_URL", "must be an http"),
    ({"VCI_BASE_URL": "https://a.test/api,b"}, "VCI_BASE_URL", "must be an http"),
    ({"VCI_BASE_URL": "https://a.test/x,http://A.test/y"}, "VCI_BASE_URL", "names a host twice"),
    ({"VCI_BASE_URL": "https://u:p@a.test/api"}, "VCI_BASE_URL", "user or password"),
    ({"VCI_BASE_URL": "http://127.0.0.1:3000/api"}, "VCI_BASE_URL", "names this node itself"),
    (
        {"VCI_BASE_URL": ",".join(f"https://{host}.test" for host in "abcdefghi")},
        "VCI_BASE_URL",
        "at most 8 upstreams",
    ),
    ({"CSRF_TRUSTED_ORIGINS": "api.test"}, "CSRF_TRUSTED_ORIGINS", "must be an http"),
    ({"CORE_NETWORK_URL": "https://me:pw@a.test"}, "CORE_NETWORK_URL", "user or password"),
    ({"ADMIN_PATH": ""}, "ADMIN_PATH", "must be a path"),
    ({"ADMIN_PATH": "/"}, "ADMIN_PATH", "must be a path"),
    ({"ADMIN_PATH": "a//b"}, "ADMIN_PATH", "must be a path"),
    ({"ADMIN_PATH": "../x"}, "ADMIN_PATH", "must be a path"),
    ({"ADMIN_PATH": "<slug:x>/"}, "ADMIN_PATH", "must be a path"),
    ({"ADMIN_PATH": "tickers/admin/"}, "ADMIN_PATH", "are taken"),
    ({"ADMIN_SECOND_FACTOR": "maybe"}, "ADMIN_SECOND_FACTOR", "true or false"),
    ({"TOKEN_FAILURE_RATE": "ten"}, "TOKEN_FAILURE_RATE", "REQUESTS/PERIOD"),
    ({"LOGIN_FAILURES": "0"}, "LOGIN_FAILURES", "from 1 to"),
    ({"LOGIN_LOCKOUT_MINUTES": "0"}, "LOGIN_LOCKOUT_MINUTES", "from 0.1 to"),
    ({"PORT": "0"}, "PORT", "from 1 to 65535"),
    ({"PORT": "65536"}, "PORT", "from 1 to 65535"),
    ({"PORT": "http"}, "PORT", "whole number"),
    ({"PORT": "3000.5"}, "PORT", "whole number"),
    ({"PORT": ""}, "PORT", "whole number"),
    ({"BIND": "localhost"}, "BIND", "must be IP addresses"),
    ({"BIND": "127.0.0.1:3000"}, "BIND", "the port is PORT's"),
    ({"BIND": "127.0.0.1,*"}, "BIND", "must be IP addresses"),
    ({"BIND": "[::1"}, "BIND", "must be IP addresses"),
    ({"BIND": "10.0.0.0/8"}, "BIND", "must be IP addresses"),
    ({"BIND": "fe80::1%eth0"}, "BIND", "without a scope"),
    ({"BIND": "unix:api.sock"}, "BIND", "whole path"),
    ({"BIND": "unix:/run/node/"}, "BIND", "whole path"),
    ({"BIND": f"unix:/{'x' * 107}"}, "BIND", "more than 107 bytes"),
    ({"MAX_SYMBOLS": "3001"}, "MAX_SYMBOLS", "from 1 to 3000"),
    ({"SNAPSHOT_MEMORY": "0"}, "SNAPSHOT_MEMORY", "from 1 to"),
    ({"SNAPSHOT_MEMORY": "512 MB"}, "SNAPSHOT_MEMORY", "whole number"),
    ({"VCI_RATE_LIMIT": "0"}, "VCI_RATE_LIMIT", "from 1 to"),
    ({"VCI_BATCH_SIZE": "-1"}, "VCI_BATCH_SIZE", "from 1 to"),
    ({"BAN_AFTER_FAILURES": "-1"}, "BAN_AFTER_FAILURES", "from 0 to"),
    ({"TRUST_AFTER_CONFIRMED": "0"}, "TRUST_AFTER_CONFIRMED", "from 1 to"),
    ({"FAILURE_HALF_LIFE": "0"}, "FAILURE_HALF_LIFE", "from 0.001 to"),
    ({"CONFIRMED_HALF_LIFE": "nan"}, "CONFIRMED_HALF_LIFE", "from 0.001 to"),
    ({"BAN_HOURS": "0"}, "BAN_HOURS", "from 0.001 to"),
    ({"MAX_BAN_HOURS": "90000"}, "MAX_BAN_HOURS", "from 0.001 to"),
    ({"MAX_BAN_HOURS": "23"}, "MAX_BAN_HOURS", "not be less than BAN_HOURS"),
    ({"KEEP_HOURLY_COUNTS": "0"}, "KEEP_HOURLY_COUNTS", "from 1 to"),
    ({"KEEP_IDLE_ACTORS": "0"}, "KEEP_IDLE_ACTORS", "from 1 to"),
    ({"KEEP_HISTORY": "0"}, "KEEP_HISTORY", "from 1 to"),
    ({"TRUST_WINDOW": "0.5"}, "TRUST_WINDOW", "from 1 to 86400"),
    ({"TRUST_WINDOW": "nan"}, "TRUST_WINDOW", "from 1 to 86400"),
    ({"MAX_PRICE_CHANGE": "10"}, "MAX_PRICE_CHANGE", "from 0.001 to 1"),
    ({"MAX_PRICE_CHANGE": "10%"}, "MAX_PRICE_CHANGE", "must be a number"),
    ({"CORE_WORKER_INTERVAL": "NaN"}, "CORE_WORKER_INTERVAL", "from 0.1 to"),
    ({"NON_OFFICE_HOURS_INTERVAL": "inf"}, "NON_OFFICE_HOURS_INTERVAL", "from 0.1 to"),
    ({"PUBLIC_REFRESH_INTERVAL": "5m"}, "PUBLIC_REFRESH_INTERVAL", "must be a number"),
    (PRODUCTION | {"SECURE_HSTS_SECONDS": "-1"}, "SECURE_HSTS_SECONDS", "from 0 to"),
    (PRODUCTION | {"SECURE_HSTS_PRELOAD": "true"}, "SECURE_HSTS_PRELOAD", "needs SECURE_HSTS_IN"),
    (PRODUCTION | {"SECURE_SSL_REDIRECT": "maybe"}, "SECURE_SSL_REDIRECT", "true or false"),
    ({"ENABLE_OFFICE_HOURS": "2"}, "ENABLE_OFFICE_HOURS", "true or false"),
    ({"OFFICE_HOURS_START": "9h"}, "OFFICE_HOURS_START", "time of day"),
    ({"OFFICE_HOURS_END": "24"}, "OFFICE_HOURS_END", "time of day"),
    ({"OFFICE_HOURS_END": "15:00+07:00"}, "OFFICE_HOURS_END", "without an offset"),
    ({"OFFICE_HOURS_START": "15:00"}, "OFFICE_HOURS_END", "later than OFFICE_HOURS_START"),
    ({"OFFICE_HOURS_TIMEZONE": "Asia/Saigon2"}, "OFFICE_HOURS_TIMEZONE", "time zone"),
    ({"OFFICE_HOURS_TIMEZONE": "../etc/passwd"}, "OFFICE_HOURS_TIMEZONE", "time zone"),
    ({"HISTORY_START": "01/01/2024"}, "HISTORY_START", "YYYY-MM-DD"),
    ({"HISTORY_START": "2024-02-30"}, "HISTORY_START", "YYYY-MM-DD"),
    ({"HISTORY_START": "2999-01-01"}, "HISTORY_START", "in the future"),
    ({"DEBUG_SYSTEM_TIME": "yesterday"}, "DEBUG_SYSTEM_TIME", "RFC 3339"),
    ({"DEBUG_SYSTEM_TIME": "2025-08-15T10:00:00"}, "DEBUG_SYSTEM_TIME", "offset"),
    ({"PUBLIC_BARS": "sometimes"}, "PUBLIC_BARS", "one of immediate"),
    ({"INDEPENDENT_IPV6_PREFIX": "31"}, "INDEPENDENT_IPV6_PREFIX", "from 32 to 64"),
    ({"INDEPENDENT_IPV6_PREFIX": "65"}, "INDEPENDENT_IPV6_PREFIX", "from 32 to 64"),
    ({"PUBLIC_RATE": "20"}, "PUBLIC_RATE", "REQUESTS/PERIOD"),
    ({"PUBLIC_RATE": "0/2s"}, "PUBLIC_RATE", "REQUESTS/PERIOD"),
    ({"TRUSTED_RATE": "10/2w"}, "TRUSTED_RATE", "REQUESTS/PERIOD"),
    *(
        ({name: url}, name, "must end after the host and port")
        for name in (
            "CORE_NETWORK_URL",
            "INTERNAL_PEER_URLS",
            "PUBLIC_PEER_URLS",
            "CSRF_TRUSTED_ORIGINS",
        )
        for url in ("https://a.test/gossip", "https://b.test,https://a.test/x/")
    ),
    ({"VCI_BASE_URL": "https://trading.vietcap.com.vn"}, "VCI_BASE_URL", "lacks the path"),
    ({"VCI_BASE_URL": "https://trading.vietcap.com.vn/ap/"}, "VCI_BASE_URL", "lacks the path"),
    (
        {"VCI_BASE_URL": "https://a.test/api/chart/OHLCChart/gap-chart/"},
        "VCI_BASE_URL",
        "must end before chart/OHLCChart/gap-chart",
    ),
    ({"INTERNAL_PEER_URLS": "https://a.test;https://b.test"}, "INTERNAL_PEER_URLS", "commas"),
    ({"INTERNAL_PEER_URLS": "https://<node>"}, "INTERNAL_PEER_URLS", "must be an http"),
    *(
        ({name: url}, name, "must be the http:// URL of a proxy")
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
        for url in (
            "https://proxy.test:3128",
            "socks5://proxy.test",
            "http://",
            "proxy.test:port",
            "proxy test:3128",
            "http://proxy.test/x",
            "http://[::1",
        )
    ),
    (STAGING | {"PRIMARY_TOKEN": "Change-Me-Primary-Token"}, "PRIMARY_TOKEN", "example"),
    (STAGING | {"SECRET_KEY": "correct-horse" * 6}, "SECRET_KEY", "no word repeated"),
    (STAGING | {"PRIMARY_TOKEN": "'x7Qa-91kd-Lw2m-55tz'"}, "PRIMARY_TOKEN", "quotes"),
    ({"DATA_DIR": "$HOME/node"}, "DATA_DIR", "has a $"),
    ({"DATA_DIR": "~nobody-of-this-name/node"}, "DATA_DIR", "home of no user"),
    ({"DATABASE_URL": "sqlite:////tmp"}, "DATABASE_URL", "names a folder"),
    ({"REDIS_URL": "redis://h:6379/0?timeout=5"}, "REDIS_URL", "an option that no client knows"),
    (
        {"REDIS_URL": "redis://127.0.0.1:6379", "CACHE_URL": "redis://localhost/0"},
        "CACHE_URL",
        "of REDIS_URL",
    ),
    *(
        ({name: ""}, name, "is empty: it must be")
        for name in ("PORT", "LOG_LEVEL", "TRUST_WINDOW", "PUBLIC_RATE", "ENABLE_OFFICE_HOURS")
    ),
    ({"TRUSTED_PROXIES": "nginx"}, "TRUSTED_PROXIES", "addresses or networks"),
    ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES", "addresses or networks"),
    ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL", "one of DEBUG"),
    ({"TICKERS": "VCB,NOPE,FPT"}, "TICKERS", "doesn't list: NOPE"),
    ({"UNIVERSE_FILE": "/nowhere/universe.csv"}, "UNIVERSE_FILE", "can't be read"),
    *(
        ({"REDIS_URL": f"redis+sentinel://{rest}"}, "REDIS_URL", "must name sentinels")
        for rest in ("", "a", "a/", "/main", "a:port/main", "a:0/main", "a,/main", "a/main/x")
    ),
    ({"CACHE_URL": "redis+sentinel://a/main?db=1"}, "CACHE_URL", "must name sentinels"),
    ({"REDIS_URL": "redis+sentinel://a b/main"}, "REDIS_URL", "must name sentinels"),
    ({"REDIS_URL": "127.0.0.1:6379"}, "REDIS_URL", "must be a redis://"),
    ({"REDIS_URL": "redis://"}, "REDIS_URL", "must be a redis://"),
    ({"REDIS_URL": "redis://h:port/0"}, "REDIS_URL", "must be a redis://"),
    ({"REDIS_URL": "redis://[::1/0"}, "REDIS_URL", "must be a redis://"),
    ({"REDIS_URL": "redis://h:6379/zero"}, "REDIS_URL", "must be a redis://"),
    ({"CACHE_URL": "memcached://h"}, "CACHE_URL", "must be a redis://"),
    (PRODUCTION | {"CACHE_URL": PRODUCTION["REDIS_URL"]}, "CACHE_URL", "of REDIS_URL"),
    (
        {"REDIS_URL": "redis://H.test", "CACHE_URL": "redis://h.test:6379/0"},
        "CACHE_URL",
        "of REDIS_URL",
    ),
    ({"DATABASE_URL": "node.sqlite3"}, "DATABASE_URL", "must be a postgres://"),
    ({"DATABASE_URL": "mysql://u:p@h/d"}, "DATABASE_URL", "must be a postgres://"),
    ({"DATABASE_URL": "//u:p@h/d"}, "DATABASE_URL", "must be a postgres://"),
    ({"DATABASE_URL": "postgres://u:p@h:port/d"}, "DATABASE_URL", "must be a postgres://"),
    ({"DATABASE_URL": "sqlite://host/file"}, "DATABASE_URL", "must be a postgres://"),
    ({"DATABASE_URL": "postgres://u:p@h"}, "DATABASE_URL", "name a database"),
    ({"DATABASE_URL": "sqlite://"}, "DATABASE_URL", "name a database"),
    ({"DATABASE_URL": "sqlite:////dev/null/x/f.sqlite3"}, "DATABASE_URL", "can't be made"),
    ({"DATA_DIR": "/dev/null/x"}, "DATA_DIR", "can't be made"),
]


class TestRefusals:
    @pytest.mark.parametrize(("variables", "name", "problem"), REFUSALS)
    def test_one_line_names_the_variable_what_is_wrong_and_an_example(
        self, variables: dict[str, str], name: str, problem: str
    ) -> None:
        with warnings.catch_warnings():
            # A library's warning would be a second line, and shows the URL with its password.
            warnings.simplefilter("error")
            assert_refused(variables, name, problem)

    @pytest.mark.parametrize("name", ["PRIMARY_TOKEN", "SECONDARY_TOKEN"])
    def test_tokens_have_no_default(self, name: str) -> None:
        assert_refused({}, name, "is missing", without=name)

    @pytest.mark.parametrize("name", ["SECRET_KEY", "ALLOWED_HOSTS", "REDIS_URL"])
    def test_production_has_no_default_for(self, name: str) -> None:
        assert_refused(PRODUCTION, name, "is missing", without=name)

    def test_a_webhooks_secret_is_never_shown(self) -> None:
        """It may stand in the query."""
        url = "https://chat.test/hooks/hunter2?key=hunter3&token=a%20b"
        settings = load({"PROBLEM_WEBHOOK": url})
        assert settings["PROBLEM_WEBHOOK"] == url
        assert "hunter" not in repr(settings["PROBLEM_WEBHOOK"])
        assert "hunter" not in refusal({"PROBLEM_WEBHOOK": f"{url} "[8:]})

    @pytest.mark.parametrize(
        "secret", [TOKENS["PRIMARY_TOKEN"][:15], f"change-me-{LONG}", "two words-hunter2"]
    )
    @pytest.mark.parametrize("name", ["PRIMARY_TOKEN", "SECONDARY_TOKEN", "SECRET_KEY"])
    def test_a_secret_is_never_shown(self, name: str, secret: str) -> None:
        assert secret not in refusal(PRODUCTION | {name: secret})

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("REDIS_URL", "http://:hunter2@h/0"),
            ("REDIS_URL", "redis+sentinel://:hunter2@h:x/m"),
            ("DATABASE_URL", "mysql://u:hunter2@h/d"),
            ("INTERNAL_PEER_URLS", "https://u:hunter2@h"),
        ],
    )
    def test_a_password_in_a_url_is_never_shown(self, name: str, url: str) -> None:
        assert "hunter2" not in refusal({name: url})

    @pytest.mark.parametrize("password", BARE)
    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("REDIS_URL", "redis://:{}@127.0.0.1:6379/0"),
            ("REDIS_URL", "rediss://me:{}@cache.test/0?ssl_cert_reqs=none"),
            ("REDIS_URL", "redis+sentinel://:{}@a.test:1,b.test/main/0"),
            ("CACHE_URL", "redis://me:{}@127.0.0.1:6379/1"),
            ("DATABASE_URL", "postgres://node:{}@127.0.0.1:5432/node"),
            ("HTTPS_PROXY", "http://me:{}@proxy.test:3128"),
            ("HTTP_PROXY", "me:{}@proxy.test:3128"),
        ],
    )
    def test_a_password_that_must_be_encoded_is_named_and_never_shown(
        self, name: str, url: str, password: str
    ) -> None:
        variables = {name: url.format(password)}
        assert_refused(variables, name, "percent-encoded: @ as %40, / as %2F, # as %23")
        assert password not in refusal(variables)
        assert load({name: url.format(quote(password, safe=""))})

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("REDIS_URL", "redis://:p@ss@127.0.0.1:6379/0"),
            ("REDIS_URL", "redis://h:6379/0?password=p@s/s"),
            ("REDIS_URL", "unix:///run/a@b/valkey.sock"),
            ("DATABASE_URL", "postgres://node:p@ss@127.0.0.1:5432/node"),
            ("HTTPS_PROXY", "http://me:p@ss@proxy.test:3128"),
        ],
    )
    def test_an_at_sign_that_leaves_no_doubt_is_taken(self, name: str, url: str) -> None:
        assert load({name: url})

    @pytest.mark.parametrize("name", ["INTERNAL_PEER_URLS", "CORE_NETWORK_URL", "VCI_BASE_URL"])
    def test_a_url_that_takes_no_password_says_so_whatever_is_in_it(self, name: str) -> None:
        assert_refused({name: "https://me:p@ss/w#rd@core.test"}, name, "user or password")

    @pytest.mark.parametrize(
        "token",
        [
            "secretsecretsecret",
            "hunter2-hunter2-hunter2",
            "correct-horse-battery-correct-horse-battery",
            "Secret_Token.secret_token",
            "aaaaaaaaaaaaaaaaaaaa",
            "1212121212121212",
            f"{HEX}{HEX}",
        ],
    )
    def test_a_token_that_repeats_itself_is_refused(self, token: str) -> None:
        for name in ("PRIMARY_TOKEN", "SECONDARY_TOKEN"):
            assert_refused(STAGING | {name: token}, name, "repeats")
            assert token not in refusal(PRODUCTION | {name: token})
        assert load({"PRIMARY_TOKEN": token})["PRIMARY_TOKEN"] == token

    @pytest.mark.parametrize("length", [8, 12, 32])
    def test_no_random_token_repeats_itself(self, length: int) -> None:
        throw = random.Random(12)
        assert not any(is_weak(throw.randbytes(length).hex()) for _ in range(1_000))

    @pytest.mark.parametrize("name", ["PRIMARY_TOKEN", "SECONDARY_TOKEN"])
    def test_sixteen_characters_are_enough(self, name: str) -> None:
        assert load(STAGING | {name: "sixteen-letters!"})[name] == "sixteen-letters!"

    def test_development_takes_placeholders_and_short_tokens(self) -> None:
        settings = load({"PRIMARY_TOKEN": "change-me", "SECONDARY_TOKEN": "b"})
        assert (settings["PRIMARY_TOKEN"], settings["SECONDARY_TOKEN"]) == ("change-me", "b")

    def test_a_universe_file_with_a_wrong_line(self, tmp_path: Path) -> None:
        file = tmp_path / "universe.csv"
        file.write_text("symbol,exchange,sector\nVCB,NYSE,BANKS\n", encoding="utf-8")
        assert_refused({"UNIVERSE_FILE": str(file)}, "UNIVERSE_FILE", "line 2")

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
    def test_no_text_makes_a_reader_fail_otherwise(self, value: str) -> None:
        environment = Environment({"X": value})
        for read in (
            lambda: environment.flag("X", default=True),
            lambda: environment.integer("X", 1, low=0, high=9),
            lambda: environment.number("X", 1, low=0, high=9),
            lambda: environment.rate("X", "1/s"),
            lambda: environment.date("X", "2024-01-01"),
            lambda: environment.instant("X"),
            lambda: environment.time_of_day("X", "09:00"),
            lambda: environment.timezone("X", "UTC"),
            lambda: environment.token("X"),
            lambda: environment.secret_key("X"),
            lambda: environment.urls("X", example="https://a.test"),
            lambda: environment.networks("X"),
        ):
            assert_answers_or_refuses(read)

    @given(
        st.sampled_from(
            ["redis", "rediss", "unix", "redis+sentinel", "postgres", "sqlite", "http", "x", ""]
        ),
        st.sampled_from(["://", ":///", ":", "//", ""]),
        st.text(st.sampled_from("ah1:/@?#[]%.,&=db "), max_size=16),
    )
    def test_no_url_makes_a_reader_fail_otherwise(self, scheme: str, sep: str, rest: str) -> None:
        environment = Environment({"X": f"{scheme}{sep}{rest}"})
        assert_answers_or_refuses(lambda: next_database(environment.redis_url("X", "redis://h")))
        assert_answers_or_refuses(lambda: environment.database("X", "sqlite:///f"))
        assert_answers_or_refuses(lambda: environment.urls("X", example="https://a.test"))


def assert_answers_or_refuses(read: Any) -> None:
    with contextlib.suppress(SettingsError):
        read()


class TestItself:
    """A node that would gossip with, or follow, itself."""

    @pytest.mark.parametrize("name", ["CORE_NETWORK_URL", "INTERNAL_PEER_URLS", "PUBLIC_PEER_URLS"])
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:3000",
            "http://127.0.0.2:3000/",
            "http://0.0.0.0:3000",
            "http://localhost:3000",
            "http://LOCALHOST.:3000",
            "http://node.localhost:3000",
            "http://[::1]:3000",
            "http://[::]:3000",
            "http://[::ffff:127.0.0.1]:3000",
            f"http://{socket.gethostname()}:3000",
        ],
    )
    def test_by_an_address_of_this_machine(self, name: str, url: str) -> None:
        assert_refused({name: f"https://other.test,{url}"}, name, "names this node itself")

    def test_by_the_address_of_a_network_card(self) -> None:
        addresses = [
            entry.address
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family == socket.AF_INET and not entry.address.startswith("127.")
        ]
        if not addresses:
            pytest.skip("this machine has no address besides loopback")
        url = f"http://{addresses[0]}:3000"
        assert_refused({"CORE_NETWORK_URL": url}, "CORE_NETWORK_URL", "itself")

    @pytest.mark.parametrize(
        "url",
        ["https://api.test", "http://API.test/", "http://api.test:3000", "https://api.test:443"],
    )
    def test_by_its_own_name(self, url: str) -> None:
        hosts = {"ALLOWED_HOSTS": "api.test,[2001:db8::1]"}
        assert_refused({"CORE_NETWORK_URL": url} | hosts, "CORE_NETWORK_URL", "itself")
        assert_refused(
            {"INTERNAL_PEER_URLS": "http://[2001:db8::1]:3000"} | hosts,
            "INTERNAL_PEER_URLS",
            "itself",
        )

    def test_on_the_port_it_has(self) -> None:
        own = {"CORE_NETWORK_URL": "http://localhost:80"}
        assert_refused(own | {"PORT": "80"}, "CORE_NETWORK_URL", "itself")

    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1:3001", "http://localhost", "https://api.test", "https://b.test:3000"],
    )
    def test_another_node_is_followed(self, url: str) -> None:
        assert load({"CORE_NETWORK_URL": url})["CORE_NETWORK_URLS"] == [url]

    def test_another_port_of_its_own_name_is_another_node(self) -> None:
        url = "http://api.test:3001"
        settings = load({"CORE_NETWORK_URL": url, "ALLOWED_HOSTS": "api.test"})
        assert settings["CORE_NETWORK_URLS"] == [url]

    def test_the_default_public_peer_is_refused_where_it_would_be_itself(self) -> None:
        itself = PRODUCTION | {"ALLOWED_HOSTS": "api.aipriceaction.com"}
        assert_refused(itself, "PUBLIC_PEER_URLS", "itself")
        assert load(itself | {"PUBLIC_PEER_URLS": ""})["PUBLIC_PEER_URLS"] == []


class TestOutboundProxy:
    def test_there_is_none_by_default(self) -> None:
        settings = load()
        assert (settings["HTTPS_PROXY"], settings["HTTP_PROXY"], settings["NO_PROXY"]) == ("",) * 3

    @pytest.mark.parametrize("in_file", [False, True])
    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
    def test_what_is_asked_is_asked_through_the_one_that_is_named(
        self, name: str, in_file: bool, tmp_path: Path
    ) -> None:
        lines = {name: "http://me:secret@proxy.test:3128", "NO_PROXY": "b.test"}
        file = tmp_path / "node.env"
        file.write_text("\n".join(f"{key}={value}" for key, value in lines.items()))
        variables = TOKENS | ({"ENV_FILE": str(file)} if in_file else lines)
        done = run(
            "-c",
            "import proxy_site.settings\n"
            "from tickers.outbound_proxy import OutboundProxy as Proxy\n"
            "for url in ('https://a.test', 'http://a.test', 'https://b.test'):\n"
            "    proxy = Proxy.to(url)\n"
            "    print(proxy and proxy.name)",
            **variables,
        )
        assert done.stdout.split() == ["proxy.test:3128", "None", "None"]
        assert done.stderr == ""

    def test_the_environment_beats_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "node.env"
        file.write_text("HTTPS_PROXY=http://file.test\nhttp_proxy=http://file.test\n")
        settings = load({"ENV_FILE": str(file), "https_proxy": "http://environment.test"})
        assert settings["HTTPS_PROXY"] == "http://environment.test"
        assert settings["HTTP_PROXY"] == "http://file.test"
        assert load({"ENV_FILE": str(file), "HTTPS_PROXY": ""})["HTTPS_PROXY"] == ""

    def test_its_password_doesnt_show_itself(self) -> None:
        settings = load({"HTTP_PROXY": "http://me:secret@proxy.test"})
        assert "secret" not in repr(settings["HTTP_PROXY"])


class TestRemarks:
    """What doesn't end the start, and is told in a line."""

    @pytest.mark.parametrize(
        ("variables", "remark"),
        [
            (
                {"CORE_NETWORK_URL": "https://a.test", "INTERNAL_PEER_URLS": "https://b.test"},
                "INTERNAL_PEER_URLS and PUBLIC_PEER_URLS have no effect: CORE_NETWORK_URL",
            ),
            (
                {"PUBLIC_PEER_URLS": "https://b.test", "INTERNAL_PEER_URLS": "https://b.test/"},
                "PUBLIC_PEER_URLS names a node of INTERNAL_PEER_URLS",
            ),
            (
                PRODUCTION | {"DEBUG_SYSTEM_TIME": "2025-08-15T10:00:00+07:00"},
                "DEBUG_SYSTEM_TIME has no effect in production",
            ),
            ({"NO_PROXY": "a.test, https://b.test"}, "NO_PROXY takes hosts"),
            ({"no_proxy": "*.b.test"}, "NO_PROXY takes hosts"),
        ],
    )
    def test_settings_without_effect(
        self, variables: dict[str, str], remark: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load(variables)
        line, nothing = capsys.readouterr().err.split("\n")
        assert line.startswith(f"aipriceaction-proxy: {remark}")
        assert nothing == ""

    def test_a_name_that_looks_like_a_setting(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "node.env"
        file.write_text("TRUSTED_PROXY=hunter2\nLOGLEVEL=hunter2\nPOSTGRES_PASSWORD=hunter2\n")
        load({"ENV_FILE": str(file)})
        told = capsys.readouterr().err
        assert [line.partition(", ")[2] for line in told.splitlines()] == [
            "which is no setting; TRUSTED_PROXIES may have been meant",
            "which is no setting; LOG_LEVEL may have been meant",
        ]
        assert "hunter2" not in told

    def test_a_node_that_is_set_up_well_is_told_nothing(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load()
        load(PRODUCTION)
        load({"ENV_FILE": str(CORE_EXAMPLE)})
        load({"ENV_FILE": str(PUBLIC_EXAMPLE)})
        assert capsys.readouterr().err == ""

    def test_a_misspelt_name_that_leaves_a_setting_missing_is_in_its_refusal(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "node.env"
        file.write_text(f"REDIS_URI=redis://127.0.0.1:6379/0\nSECRETKEY={SECRET_KEY}\n")
        variables = PRODUCTION | {"ENV_FILE": str(file)}
        line = refusal(variables, without="REDIS_URL")
        assert f"production needs a server; line 1 of {file} sets REDIS_URI" in line
        line = refusal(variables, without="SECRET_KEY")
        assert f"line 2 of {file} sets SECRETKEY" in line
        assert SECRET_KEY not in line

    def test_no_setting_looks_like_another_that_is_missing(self) -> None:
        names = variables_read() - set(PROXY_NAMES)
        for name in names:
            others = difflib.get_close_matches(name, names - {name}, n=1, cutoff=VERY_ALIKE)
            assert others == [], name


class TestValues:
    def test_a_tilde_is_the_home_of_the_user(self, tmp_path: Path) -> None:
        with mock.patch.dict(os.environ, {"HOME": str(tmp_path)}):
            assert load({"DATA_DIR": "~/node"})["DATA_DIR"] == tmp_path / "node"

    @pytest.mark.parametrize("word", ["1", "true", "TRUE", "yes", "on"])
    def test_words_for_true(self, word: str) -> None:
        assert load({"ENABLE_OFFICE_HOURS": word})["OFFICE_HOURS"].enabled is True

    @pytest.mark.parametrize("word", ["0", "false", "False", "no", "off"])
    def test_words_for_false(self, word: str) -> None:
        assert load({"ENABLE_OFFICE_HOURS": word})["OFFICE_HOURS"].enabled is False

    def test_a_whole_hour_is_a_time_of_day(self) -> None:
        hours = load({"OFFICE_HOURS_START": "8", "OFFICE_HOURS_END": "16:30"})["OFFICE_HOURS"]
        assert (hours.start, hours.end) == (dt.time(8), dt.time(16, 30))

    def test_tickers_choose_from_the_universe(self) -> None:
        assert sorted(load({"TICKERS": "vcb, FPT,"})["UNIVERSE"].symbols) == ["FPT", "VCB"]

    def test_proxies_are_addresses_and_networks(self) -> None:
        proxies = load({"TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,::1"})["TRUSTED_PROXIES"]
        assert proxies == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]

    @pytest.mark.parametrize("path", ["back-office", "/back-office", "/back-office/"])
    def test_the_admins_path_ends_in_a_slash_and_begins_with_none(self, path: str) -> None:
        assert load({"ADMIN_PATH": path})["ADMIN_PATH"] == "back-office/"
        assert load({"ADMIN_PATH": "a/B_1"})["ADMIN_PATH"] == "a/B_1/"

    def test_only_the_admins_path_is_redirected_to_https(self) -> None:
        (exempt,) = load(PRODUCTION | {"ADMIN_PATH": "back/office"})["SECURE_REDIRECT_EXEMPT"]
        for path in ("tickers", "gossip", "", "admin/", "back"):
            assert re.search(exempt, path)
        for path in ("back/office", "back/office/", "back/office/login/"):
            assert not re.search(exempt, path)

    def test_a_secret_doesnt_show_itself(self) -> None:
        settings = load({"SECRET_KEY": SECRET_KEY})
        for name in ("PRIMARY_TOKEN", "SECONDARY_TOKEN", "SECRET_KEY"):
            assert repr(settings[name]) == "'********'"
            assert str([settings[name]]) == "['********']"
        assert settings["PRIMARY_TOKEN"] == TOKENS["PRIMARY_TOKEN"]

    def test_the_second_factor_has_its_apps_only_when_it_is_on(self) -> None:
        names = {False: load(), True: load({"ADMIN_SECOND_FACTOR": "true"})}
        for on, settings in names.items():
            assert ("django_otp" in settings["INSTALLED_APPS"]) == on
            middleware = settings["MIDDLEWARE"]
            assert ("proxy_site.middleware.PageSecondFactor" in middleware) == on

    def test_the_upstream_is_a_folder(self) -> None:
        settings = load({"VCI_BASE_URL": "http://127.0.0.1:8000/api"})
        assert settings["VCI_BASE_URLS"] == ["http://127.0.0.1:8000/api/"]

    def test_several_upstreams_are_kept_in_order_and_once(self) -> None:
        urls = "https://b.test/api/, https://a.test/api,https://b.test/api,"
        settings = load({"VCI_BASE_URL": urls})
        assert settings["VCI_BASE_URLS"] == ["https://b.test/api/", "https://a.test/api/"]

    def test_what_a_postgres_url_says_is_kept(self) -> None:
        url = "postgres://u:p%40ss@db.test:5433/node?sslmode=require"
        database = load({"DATABASE_URL": url})["DATABASES"]["default"]
        assert database["ENGINE"] == "django.db.backends.postgresql"
        assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.test", 5433, "node")
        assert database["PASSWORD"] == "p@ss"
        assert database["OPTIONS"] == {
            "connect_timeout": 5,
            "tcp_user_timeout": 5_000,
            "sslmode": "require",
        }

    @pytest.mark.parametrize(
        ("url", "following"),
        [
            ("redis://h:6379/0", "redis://h:6379/1"),
            ("redis://h", "redis://h/1"),
            ("rediss://u:p@h:1/4?ssl_cert_reqs=none", "rediss://u:p@h:1/5?ssl_cert_reqs=none"),
            ("redis://h:6379?db=3", "redis://h:6379?db=4"),
            ("unix:///run/v.sock", "unix:///run/v.sock?db=1"),
            ("unix:///run/v.sock?db=1&password=p", "unix:///run/v.sock?password=p&db=2"),
            ("redis+sentinel://a:1,b/main", "redis+sentinel://a:1,b/main/1"),
            (
                "redis+sentinel://u:p%40@[::1]:1,b:2/Main/3?sentinel_password=s",
                "redis+sentinel://u:p%40@[::1]:1,b:2/Main/4?sentinel_password=s",
            ),
        ],
    )
    def test_the_cache_is_the_next_database(self, url: str, following: str) -> None:
        assert next_database(url) == following
        assert not same_database(url, following)

    @pytest.mark.parametrize("one", ["redis://h", "redis://H:6379/0", "redis://u:p@h?db=0"])
    def test_one_database_written_differently(self, one: str) -> None:
        assert same_database(one, "redis://h:6379")
        assert not same_database(one, "redis://h:6380")
        assert not same_database(one, "redis://other")

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("redis+sentinel://a,b/main", "redis+sentinel://b:26379,c/main/0", True),
            ("redis+sentinel://a/main", "redis+sentinel://a/main/1", False),
            ("redis+sentinel://a/main", "redis+sentinel://a/other", False),
            ("redis+sentinel://a/main", "redis+sentinel://b/main", False),
            ("redis+sentinel://a/main", "redis://a:26379/0", False),
            ("redis://a:26379/0", "redis+sentinel://a/main", False),
        ],
    )
    def test_sentinels_lead_to_one_database_whichever_are_named(
        self, one: str, other: str, same: bool
    ) -> None:
        assert same_database(one, other) is same

    def test_the_cache_asks_the_sentinels_too(self) -> None:
        url = "redis+sentinel://user:p%40ss@a.test:1,b.test/Main/3?sentinel_password=s"
        settings = load(PRODUCTION | {"REDIS_URL": url})
        cache = settings["CACHES"]["default"]
        options = cache["OPTIONS"]
        assert settings["CACHE_URL"] == url.replace("/3?", "/4?")
        assert cache["LOCATION"].endswith("/4")
        assert options["CONNECTION_POOL_KWARGS"] == {"service_name": "Main"}
        assert options["SENTINELS"] == [("a.test", 1), ("b.test", 26_379)]
        assert (options["USERNAME"], options["PASSWORD"]) == ("user", "p@ss")
        assert options["SENTINEL_KWARGS"]["password"] == "s"


class TestProcesses:
    """What an operator sees: `manage.py check` of a node that may not start."""

    @pytest.mark.parametrize(
        ("variables", "name", "secret"),
        [
            ({}, "PRIMARY_TOKEN", None),
            (TOKENS | PRODUCTION | {"SECRET_KEY": "hunter2"}, "SECRET_KEY", "hunter2"),
            (TOKENS | STAGING | {"PRIMARY_TOKEN": "hunter2"}, "PRIMARY_TOKEN", "hunter2"),
            (TOKENS | {"PORT": "many"}, "PORT", None),
            (TOKENS | {"CORE_NETWORK_URL": "http://[::1]:3000"}, "CORE_NETWORK_URL", None),
            (TOKENS | {"DATABASE_URL": "//u:hunter2@h/d"}, "DATABASE_URL", "hunter2"),
            (TOKENS | {"REDIS_URL": "redis://:hunter2@[::1/0"}, "REDIS_URL", "hunter2"),
        ],
    )
    def test_a_refusal_is_one_line_and_no_traceback(
        self, variables: dict[str, str], name: str, secret: str | None
    ) -> None:
        done = run("manage.py", "check", **variables)
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert re.match(rf"aipriceaction-proxy: {name} .*\. Example: {name}=\S", done.stderr)
        assert secret is None or secret not in done.stderr

    def test_production_is_clean_under_check_deploy(self) -> None:
        variables = TOKENS | PRODUCTION
        collected = run("manage.py", "collectstatic", "--noinput", "--verbosity=0", **variables)
        assert collected.returncode == 0
        done = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        # Four look for middleware by name; test_middleware.py looks for what it does.
        assert "no issues (4 silenced)" in done.stdout

    @pytest.mark.parametrize("example", [CORE_EXAMPLE, PUBLIC_EXAMPLE])
    def test_an_example_file_makes_a_node_for_development(self, example: Path) -> None:
        done = run("manage.py", "check", "--fail-level", "WARNING", ENV_FILE=str(example))
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("example", [CORE_EXAMPLE, PUBLIC_EXAMPLE])
    def test_an_example_file_is_refused_in_production(self, example: Path) -> None:
        variables = {
            name: PRODUCTION[name] for name in ("ENVIRONMENT", "REDIS_URL", "ALLOWED_HOSTS")
        }
        done = run("manage.py", "check", ENV_FILE=str(example), **variables)
        assert done.returncode != 0
        assert "SECRET_KEY still has the value of an example" in done.stderr


def variables_read() -> set[str]:
    """The names in calls like env.integer("PORT", ...) of settings.py, and ENVIRONMENT."""
    found = {"ENVIRONMENT"}  # Environment reads it before anything else, and settings.py uses it
    for node in ast.walk(ast.parse(SETTINGS.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
        ):
            assert isinstance(node.args[0], ast.Constant), ast.dump(node)
            found.add(str(node.args[0].value))
    return found


def lines_of(example: Path) -> list[tuple[bool, str, str]]:
    """Each variable's line: whether it is commented out, the name, the value."""
    found = re.finditer(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", example.read_text(encoding="utf-8"), re.M)
    return [(bool(mark), name, value) for mark, name, value in (line.groups() for line in found)]


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        "UNIVERSE": list(settings["UNIVERSE"]),
        "UNIVERSE_FILE": settings["UNIVERSE_FILE"].resolve(),
    }


class TestExampleFiles:
    def test_the_core_nodes_has_each_variable_once_and_no_other(self) -> None:
        names = [name for _, name, _ in lines_of(CORE_EXAMPLE)]
        assert sorted(names) == sorted(variables_read())

    def test_the_public_nodes_has_each_once_or_says_that_it_makes_no_difference(self) -> None:
        text = PUBLIC_EXAMPLE.read_text(encoding="utf-8")
        paragraph = re.search(r"make\n# no difference to it: ([^.]*)\.", text)
        assert paragraph
        idle = re.findall(r"[A-Z_]{4,}", paragraph[1])
        names = [name for _, name, _ in lines_of(PUBLIC_EXAMPLE)]
        assert sorted(names + idle) == sorted(variables_read())

    @pytest.mark.parametrize("example", [CORE_EXAMPLE, PUBLIC_EXAMPLE])
    def test_what_is_commented_out_is_the_default(
        self, example: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)  # the files name folders of the checkout
        in_production = {
            "PUBLIC_PEER_URLS",
            "SECURE_SSL_REDIRECT",
            "SECURE_HSTS_SECONDS",
            "SECURE_HSTS_INCLUDE_SUBDOMAINS",
            "SECURE_HSTS_PRELOAD",
        }
        for commented, name, value in lines_of(example):
            if not commented:
                continue
            base = PRODUCTION if name in in_production else {}
            default = load(base, without=name)
            assert comparable(load({**base, name: value})) == comparable(default), name

    @pytest.mark.parametrize("example", [CORE_EXAMPLE, PUBLIC_EXAMPLE])
    def test_every_variable_is_explained(self, example: Path) -> None:
        blocks = example.read_text(encoding="utf-8").split("\n\n")
        for block in blocks:
            if re.search(r"^#?[A-Z][A-Z0-9_]*=", block, re.M):
                assert block.startswith("# "), block

    @pytest.mark.parametrize("example", [CORE_EXAMPLE, PUBLIC_EXAMPLE])
    def test_secrets_are_placeholders(self, example: Path) -> None:
        values = {name: value for commented, name, value in lines_of(example) if not commented}
        for name in ("SECRET_KEY", "PRIMARY_TOKEN", "SECONDARY_TOKEN"):
            assert values[name].startswith("change-me")

    def test_they_make_a_core_node_and_a_public_node(self) -> None:
        def node(example: Path) -> dict[str, Any]:
            with mock.patch.dict(os.environ, clean(ENV_FILE=str(example)), clear=True):
                return runpy.run_path(str(SETTINGS))

        assert node(CORE_EXAMPLE)["IS_PUBLIC_NODE"] is False
        assert node(PUBLIC_EXAMPLE)["CORE_NETWORK_URLS"] == ["https://api.aipriceaction.com"]
