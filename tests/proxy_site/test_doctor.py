"""The doctor: what it finds of files, servers and others, and how a command says it."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings

from proxy_site import forgotten_proxies, ownership
from proxy_site.doctor import machine, network, servers
from proxy_site.doctor.findings import Finding, Severity
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.proxy_site.test_worker import FRIDAY_11
from tests.support.doors import cache_away, database_away, forget, store_away
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY
from tests.support.proxies import Door, Reply
from tickers.clock_skew import ClockSkew
from tickers.universe import Universe

OK, WARNING, ERROR = Severity
AWAY = "http://127.0.0.1:9"


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


# --- This machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "severity", "words"),
    [(0o600, OK, ""), (0o640, OK, ""), (0o644, WARNING, "read"), (0o660, WARNING, "write")],
)
def test_a_settings_file_that_others_read_is_told(
    tmp_path: Path, settings: Any, mode: int, severity: Severity, words: str
) -> None:
    settings.ENV_FILE = tmp_path / ".env"
    assert machine.of_environment_file().severity is OK
    settings.ENV_FILE.touch()
    settings.ENV_FILE.chmod(mode)
    finding = machine.of_environment_file()
    assert finding.severity is severity
    assert words in finding.text
    assert not finding.remedy or finding.remedy == f"chmod 600 {settings.ENV_FILE}"


@pytest.mark.parametrize(
    ("folder", "file", "severity", "remedy"),
    [
        (0o711, 0o600, OK, ""),
        (0o733, 0o600, WARNING, "chmod go-w "),
        (0o711, 0o622, WARNING, "chmod go-w "),
        (0o711, 0o644, WARNING, "chmod 600 "),
    ],
)
def test_a_data_folder_that_others_reach_is_told(
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    folder: int,
    file: int,
    severity: Severity,
    remedy: str,
) -> None:
    database = tmp_path / "reputation.sqlite3"
    database.touch()
    database.chmod(file)
    tmp_path.chmod(folder)
    settings.DATA_DIR = tmp_path
    of_sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(database)}
    monkeypatch.setitem(settings.DATABASES, "default", of_sqlite)
    finding = machine.of_data_dir()
    assert (finding.severity, finding.remedy.startswith(remedy)) == (severity, True)


def test_remarks_on_settings_are_told(settings: Any) -> None:
    assert [each.severity for each in machine.of_settings()] == [OK]
    settings.REMARKS = ["TRUSTED_PROXY is no setting: did you mean TRUSTED_PROXIES?"]
    finding = only(machine.of_settings())
    assert (finding.severity, finding.text) == (WARNING, settings.REMARKS[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_another_user_are_told(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path
    os.chown(tmp_path, 65_534, 65_534)
    finding = machine.of_data_dir()
    assert finding.severity is WARNING
    assert "belongs to" in finding.text
    assert "run every command as" in finding.remedy


def test_a_low_limit_of_open_files_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        finding = machine.of_open_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.severity is WARNING
    assert "LimitNOFILE" in finding.remedy
    assert "512" in finding.text


# --- The node's servers ---------------------------------------------------------------------------


@pytest.fixture
def node(clean_server: redis.Redis) -> Iterator[redis.Redis]:
    forget()
    yield clean_server
    forget()


def test_a_sound_redis_is_described(node: redis.Redis) -> None:
    found = servers.of_redis()
    assert [(each.check, each.severity) for each in found] == [
        ("redis", OK),
        ("cache", OK),
        ("ownership", OK),
    ]
    assert "append-only file, noeviction" in found[0].text
    assert "16 databases" in found[0].text


def test_each_danger_of_redis_is_a_line(node: redis.Redis) -> None:
    node.config_set("appendonly", "no")
    node.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = [each for each in servers.of_redis() if each.check == "redis"]
    finally:
        node.config_set("maxmemory-policy", "noeviction")
        node.config_set("appendonly", "yes")
    assert [each.severity for each in found] == [WARNING, ERROR]
    assert [each.remedy for each in found] == [
        "set appendonly yes",
        "set maxmemory-policy noeviction",
    ]


def test_memory_that_runs_out_is_told_before(node: redis.Redis) -> None:
    reads: Any = node
    node.setrange("filling", 30_000_000, b"end")  # beside which the server's own is little
    node.config_set("maxmemory", round(reads.info("memory")["used_memory"] / 0.95))
    try:
        text = [each.text for each in servers.of_redis() if each.severity is WARNING]
    finally:
        node.config_set("maxmemory", 0)
    assert len(text) == 1
    assert "of its memory" in text[0]


@pytest.mark.django_db
def test_servers_that_are_away_are_errors_with_their_settings(
    node: redis.Redis, settings: Any
) -> None:
    with store_away(settings), cache_away(settings), database_away():
        found = {each.check: each for each in servers.look()}
    assert {name: each.severity for name, each in found.items()} == {
        "redis": ERROR,
        "cache": ERROR,
        "ownership": WARNING,
        "database": ERROR,
        "market": WARNING,
        "worker": WARNING,
        "proxy": WARNING,
    }
    assert found["redis"].remedy == "see REDIS_URL"
    assert "DATA_DIR" in found["database"].line()


def test_a_proxy_that_isnt_trusted_is_told(node: redis.Redis, settings: Any) -> None:
    assert servers.of_proxy().severity is OK
    forgotten_proxies._noted.clear()
    forgotten_proxies.watch({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.7"})
    finding = servers.of_proxy()
    assert finding.severity is WARNING
    assert "127.0.0.1" in finding.text
    assert "TRUSTED_PROXIES" in finding.remedy
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    assert servers.of_proxy().severity is OK


@pytest.mark.django_db
def test_a_database_without_a_migration_is_an_error(node: redis.Redis) -> None:
    assert [each.severity for each in servers.of_database()] == [OK, OK]
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE name = '0004_appeal'")
    migrations = servers.of_database()[1]
    assert (migrations.severity, migrations.remedy) == (ERROR, "run manage.py migrate")


# --- Others ---------------------------------------------------------------------------------------


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        yield door


class TestPeers:
    @pytest.mark.parametrize(
        ("status", "severity"),
        [(200, OK), (400, OK), (422, OK), (401, ERROR), (429, WARNING), (404, WARNING)],
    )
    def test_an_internal_ones_answer_to_our_token(
        self, door: Door, settings: Any, status: int, severity: Severity
    ) -> None:
        door.answer = lambda request: Reply(status)
        finding = network.of_internal_peer(door.url, ClockSkew())
        assert finding.severity is severity
        ((request, _),) = door.seen
        assert request.path == "/gossip"
        assert request.authorization == f"Bearer {settings.PRIMARY_TOKEN}"
        # A bar without a symbol, which no node keeps.
        assert "symbol" not in json.loads(request.body)
        assert settings.PRIMARY_TOKEN not in finding.line()

    @pytest.mark.parametrize(("status", "severity"), [(200, OK), (502, WARNING), (None, WARNING)])
    def test_a_public_one_is_only_read(
        self, door: Door, status: int | None, severity: Severity
    ) -> None:
        door.answer = lambda request: Reply(status)
        assert network.of_public_peer(door.url, ClockSkew()).severity is severity
        assert [(request.path, request.authorization) for request, _ in door.seen] == [
            ("/health", "")
        ]

    def test_one_that_is_away_is_a_warning(self) -> None:
        for ask in (network.of_internal_peer, network.of_public_peer):
            finding = ask(AWAY, ClockSkew())
            assert finding.severity is WARNING
            assert "_PEER_URLS" in finding.remedy


class TestUpstream:
    @pytest.fixture
    def exchange(self) -> Iterator[SimulatorServer]:
        market = SimulatedMarket(
            Universe.read(),
            clock=AcceleratedClock(FRIDAY_11, 0),
            seed=5,
            history_start=FRIDAY_11.date().replace(day=1),
        )
        with SimulatorServer(market) as server:
            yield server

    def test_is_asked_once_and_counted_in_the_budget(
        self, node: redis.Redis, settings: Any, exchange: SimulatorServer
    ) -> None:
        settings.VCI_BASE_URLS = [exchange.url]
        finding = network.of_upstream(exchange.url, ClockSkew())
        assert finding.severity is OK, finding
        assert exchange.stats()["requests"] == 1
        assert node.llen("{market}:upstream_requests") == 1

    def test_that_refuses_is_an_error_after_one_request(
        self, node: redis.Redis, settings: Any, exchange: SimulatorServer
    ) -> None:
        settings.VCI_BASE_URLS = [exchange.url]
        exchange.fail_with_status(403)
        finding = network.of_upstream(exchange.url, ClockSkew())
        assert finding.severity is ERROR
        assert "VCI_BASE_URL" in finding.remedy
        assert exchange.stats()["requests"] == 1

    def test_isnt_asked_over_its_budget(
        self,
        node: redis.Redis,
        settings: Any,
        exchange: SimulatorServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings.VCI_BASE_URLS, settings.VCI_RATE_LIMIT = [exchange.url], 1
        monkeypatch.setattr(network, "PATIENCE", 0.2)
        assert network.of_upstream(exchange.url, ClockSkew()).severity is OK
        finding = network.of_upstream(exchange.url, ClockSkew())
        assert (finding.severity, "budget is used up" in finding.text) == (WARNING, True)
        assert exchange.stats()["requests"] == 1

    def test_of_a_public_node_is_its_core_network(
        self, node: redis.Redis, settings: Any, door: Door
    ) -> None:
        symbol = settings.UNIVERSE.symbols[0]
        door.answer = lambda request: Reply(200, json.dumps({symbol: []}).encode())
        assert network.of_core_network(door.url, ClockSkew()).severity is OK
        assert len(door.seen) == 1
        finding = network.of_core_network(AWAY, ClockSkew())
        assert (finding.severity, "CORE_NETWORK_URL" in finding.remedy) == (ERROR, True)


class TestClock:
    def test_agrees_with_redis(self, node: redis.Redis) -> None:
        assert [each.severity for each in network.of_clock(ClockSkew())] == [OK]

    def test_is_compared_with_redis(
        self, node: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = time.time
        monkeypatch.setattr("proxy_site.doctor.network.time.time", lambda: real() + 90)
        finding = only(list(network.of_clock(ClockSkew())))
        assert finding.severity is WARNING
        assert "+90 s off Redis's" in finding.text
        assert "NTP" in finding.remedy

    def test_is_compared_with_those_who_answer(
        self, node: redis.Redis, settings: Any, door: Door
    ) -> None:
        skew = ClockSkew(wall_time=lambda: time.time() + 3_600)
        network.of_internal_peer(door.url, skew)
        finding = only(list(network.of_clock(skew)))
        assert finding.severity is WARNING
        assert "ahead of that of the internal peers" in finding.text


# --- The commands ---------------------------------------------------------------------------------


def manage(folder: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = clean(
        **{
            "DATA_DIR": str(folder),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "REDIS_URL": node_settings.REDIS_URL,
            "VCI_BASE_URL": f"{AWAY}/api/",
            **settings,
        }
    )
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_has_a_line_for_each_and_says_the_worst_by_its_code(
    node: redis.Redis, tmp_path: Path
) -> None:
    done = manage(tmp_path, "doctor")
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "warning", "error"}
    (migrations,) = [line for line in lines if " migrations " in line]
    assert migrations.startswith("error ")
    assert migrations.endswith("; remedy: run manage.py migrate")
    for name in ("settings", "env file", "data folder", "static files", "open files", "redis",
                 "cache", "ownership", "database", "worker", "market", "proxy", "upstream", "peers",
                 "clock"):  # fmt: skip
        assert len([line for line in lines if line[9:].startswith(f"{name} ")]) == 1, name


def test_programs_read_the_same_and_another_nodes_store_is_an_error(
    node: redis.Redis, tmp_path: Path
) -> None:
    node.set(ownership.STORE_MARK, '{"identity": "a", "name": "node-a", "since": "now"}')
    done = manage(tmp_path, "doctor", "--json", CACHE_URL="redis://127.0.0.1:9/0")
    told = json.loads(done.stdout)
    assert (done.returncode, told["status"]) == (2, "error")
    found = {each["check"]: each for each in told["findings"]}
    assert found["cache"]["remedy"] == "see CACHE_URL"
    assert found["ownership"]["severity"] == "error"
    assert "the store of another node (node-a, since now)" in found["ownership"]["text"]
    assert "take_store" in found["ownership"]["remedy"]


def test_a_wrong_setting_is_an_error_for_programs_too(tmp_path: Path) -> None:
    done = manage(tmp_path, "doctor", "--json", PORT="many")
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {
        "status": "error",
        "findings": [
            {
                "check": "settings",
                "severity": "error",
                "text": "PORT must be a whole number",
                "remedy": "for example PORT=3000",
            }
        ],
    }


PRODUCTION = {
    "ENVIRONMENT": "production",
    "ALLOWED_HOSTS": "api.test",
    "SECRET_KEY": "Zq7-doctor-test-key-0123456789-abcdefghijklmnopqrstuvwxyz",
    "INTERNAL_PEER_URLS": "",
    "REDIS_URL": "redis://127.0.0.1:9/0",
}


def test_check_deploy_looks_at_files_and_asks_servers_only_when_told(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--deploy", **PRODUCTION)
    assert done.returncode == 0
    assert "(proxy_site.W_static_files) static files aren't collected" in done.stderr
    assert "HINT: run manage.py collectstatic" in done.stderr
    assert "redis" not in done.stderr

    done = manage(tmp_path, "check", "--deploy", "--database", "default", **PRODUCTION)
    assert done.returncode == 1
    assert "(proxy_site.E_redis) the store can't be reached" in done.stderr
    assert "(proxy_site.E_migrations) migrations aren't applied" in done.stderr
    assert "HINT: run manage.py migrate" in done.stderr
