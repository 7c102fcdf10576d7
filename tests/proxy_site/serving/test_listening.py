"""BIND: where a node's API listens, and who calls there."""

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from proxy_site.local.processes import Processes
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, free_port, wait_for
from tests.support.target import connect, read_answer

BY_HTTPS = "X-Forwarded-Proto: https"


@dataclass
class Api:
    name: str
    port: int
    unix: Path
    master: int = 0

    def log(self) -> str:
        return (self.unix.parent / "api.log").read_text(errors="replace")

    def status(self, client: socket.socket, *lines: str) -> int:
        """Of the admin: 302 when the request came by HTTPS, 301 when it is redirected there."""
        head = "\r\n".join(("GET /admin/ HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""))
        client.sendall(head.encode())
        answer = read_answer(client)
        assert answer is not None
        return answer.status

    def local(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.unix))
        return client


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API as in production on a unix socket and on IPv6, where IPv4 clients come as well."""
    folder = tmp_path_factory.mktemp("listening")
    api = Api("API", free_port(), folder / "api.sock")
    environment = clean(
        ENVIRONMENT="production",
        ALLOWED_HOSTS="127.0.0.1",
        SECRET_KEY="listening-test-key-0123456789-abcdefghijklmnopqrstuvwxyz",
        PRIMARY_TOKEN=PRIMARY,
        SECONDARY_TOKEN=SECONDARY,
        INTERNAL_PEER_URLS="",
        PUBLIC_PEER_URLS="",
        REDIS_URL="redis://127.0.0.1:9/0",
        DATA_DIR=str(folder),
        PORT=str(api.port),
        BIND=f"unix:{api.unix},[::]",
        TRUSTED_PROXIES="127.0.0.1",
    )
    command = ("-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1")
    with Processes() as processes:
        api.master = processes.start(
            *("API", sys.executable, *command),
            env=environment,
            cwd=ROOT,
            log=folder / "api.log",
        )
        wait_for(lambda: "Booting worker" in api.log(), "a worker", api)
        yield api


def test_a_unix_socket_is_for_the_nodes_user_and_group(api: Api) -> None:
    assert stat.S_IMODE(api.unix.stat().st_mode) & stat.S_IRWXO == 0


def test_who_calls_on_a_unix_socket_is_believed_like_this_machine(api: Api) -> None:
    with api.local() as client:
        assert api.status(client, BY_HTTPS) == 302
        assert api.status(client) == 301


@pytest.mark.parametrize(("source", "status"), [("127.0.0.1", 302), ("127.0.0.2", 301)])
def test_an_ipv4_client_of_an_ipv6_socket_is_known_by_its_own_address(
    api: Api, source: str, status: int
) -> None:
    with connect(api.port, source=source) as client:
        assert api.status(client, BY_HTTPS) == status


def test_an_ipv6_client_that_is_no_proxy_isnt_believed(api: Api) -> None:
    with connect(api.port, source="::1") as client:
        assert api.status(client, BY_HTTPS) == 301


def test_by_default_only_this_machine_reaches_the_port(tmp_path: Path) -> None:
    port = free_port()
    environment = clean(
        PRIMARY_TOKEN=PRIMARY, SECONDARY_TOKEN=SECONDARY, DATA_DIR=str(tmp_path), PORT=str(port)
    )
    with Processes() as processes:
        master = processes.start(
            *("API", sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1"),
            env=environment | {"REDIS_URL": "redis://127.0.0.1:9/0"},
            cwd=ROOT,
            log=tmp_path / "api.log",
        )
        found = wait_for(
            lambda: [c.laddr for c in psutil.Process(master).net_connections() if not c.raddr],
            "the API to listen",
        )
    assert found == [("127.0.0.1", port)]


def test_run_node_names_an_address_that_this_machine_lacks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "run_node"],
        cwd=ROOT,
        env=clean(
            PRIMARY_TOKEN=PRIMARY,
            SECONDARY_TOKEN=SECONDARY,
            DATA_DIR=str(tmp_path),
            BIND="127.0.0.1,192.0.2.7",
            PORT=str(free_port()),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("aipriceaction-proxy: BIND names 192.0.2.7, where this machine")
    assert done.stderr.count("\n") == 1
