"""make audit, against a database of vulnerabilities on loopback."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from simulator.loopback import LoopbackServer
from tests.support.environment import clean
from tests.support.nodes import ROOT, free_port

VULNERABILITY = {
    "id": "PYSEC-2026-1",
    "summary": "lets anybody in",
    "affected": [{"package": {"name": "django", "ecosystem": "PyPI"}, "ranges": []}],
}


@contextmanager
def database(*vulnerable: str, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """One that speaks OSV's protocol; yields its address and what it was asked about."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query["package"]["name"])
            answer = {"vulns": [VULNERABILITY]} if asked[-1] in vulnerable else {}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with LoopbackServer(Handler) as server:
        yield f"http://127.0.0.1:{server.port}/", asked


def audit(url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [".ci/audit", "--vulnerability-service", "osv", "--osv-url", url],
        cwd=ROOT,
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_asks_about_every_locked_package() -> None:
    with database() as (url, asked):
        done = audit(url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "audit: no known vulnerability in requirements.lock\n"
    assert {"django", "redis", "gunicorn", "django-axes"} <= set(asked)


def test_a_known_vulnerability_fails_and_is_named() -> None:
    with database("django") as (url, _):
        done = audit(url)
    assert done.returncode == 1
    assert "PYSEC-2026-1" in done.stdout


def test_one_line_says_that_nobody_could_be_asked_and_nothing_fails() -> None:
    away = f"http://127.0.0.1:{free_port()}/"
    with database(status=503) as (broken, _):
        for url in (away, broken):
            done = audit(url)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("audit: skipped, ")
            assert done.stdout.count("\n") == 1
