"""deploy/nginx-site.conf under the real nginx, on loopback: before a node, or a stub of one."""

import gzip
import http.server
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from proxy_site.local.processes import Processes
from simulator.loopback import LoopbackServer
from tests.support.nodes import ROOT, free_port, wait_for
from tickers.snapshot.zstd_pieces import zstd

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx isn't installed: apt-get install nginx-light"
)
SITE = ROOT / "deploy" / "nginx-site.conf"
# Believed when it says whom it forwards for, so that a test may come from any address.
FORWARDER = "127.0.0.3"
# Read once, when nginx starts: what a key is like that was left alone for a while.
LEFT_ALONE = ("/tickers?symbol=LEFT", "/tickers?symbol=ALONE")


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


class _From(HTTPAdapter):
    """Calls from an address of this machine's own: all of 127.0.0.0/8 is, on Linux."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        options["source_address"] = (self._address, 0)
        super().init_poolmanager(*arguments, **options)


@dataclass
class Front:
    """A running nginx; ``get`` and ``request`` are relative to its address.

    ``plain_port`` is the one for who comes without TLS.
    """

    port: int
    folder: Path
    plain_port: int = 0
    began: float = field(default_factory=time.time)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, *, source: str = "127.0.0.1", **headers: str) -> requests.Response:
        return self.request("GET", path, source=source, **headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        source: str = "127.0.0.1",
        data: Any = None,
        **headers: str,
    ) -> requests.Response:
        names = {"Accept-Encoding": "identity"}
        names |= {name.replace("_", "-"): value for name, value in headers.items()}
        with requests.Session() as session:
            session.mount("http://", _From(source))
            return session.request(
                method, f"{self.url}{path}", headers=names, data=data, timeout=20
            )

    def log(self) -> str:
        return (self.folder / "nginx.log").read_text(errors="replace")


# What the machine's own nginx.conf says around the site, as Debian's does.
MACHINE = """{user}
worker_processes auto;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    sendfile on;
    tcp_nopush on;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log off;
    gzip on;
{temporary}
    set_real_ip_from {forwarder};
    include {folder}/site.conf;
}}
"""


def render_site(
    folder: Path,
    *,
    port: int,
    plain_port: int,
    inner_port: int,
    node_port: int,
    certificate: Path | None,
) -> str:
    """The documented site with the places that its comments offer to change, changed.

    ``certificate`` is a folder with fullchain.pem and privkey.pem; without one it speaks HTTP.
    """
    tls = " ssl http2" if certificate else ""
    text = SITE.read_text(encoding="utf-8")
    for pattern, replacement, times in (
        (r"access_log /var/[^;]*;", "access_log off;", 1),
        (r"/var/cache/nginx-aipriceaction", f"{folder}/cache", 1),
        (r"root /var/lib/aipriceaction;", f"root {folder};", 1),
        (r"root /var/www/html;", f"root {folder}/acme;", 1),
        (r"127\.0\.0\.1:3000", f"127.0.0.1:{node_port}", 3),
        (r"127\.0\.0\.1:3080", f"127.0.0.1:{inner_port}", 2),
        (r"^ +listen 443 ssl http2;", f"    listen 127.0.0.1:{port}{tls};", 1),
        (r"^ +listen 80;", f"    listen 127.0.0.1:{plain_port};", 1),
        (r"^ +listen \[::\]:(443 ssl http2|80);", "", 2),
        (r"/etc/letsencrypt/live/api\.example\.com", str(certificate), 2),
        (r"^ +ssl_certificate\w* .*;", r"\g<0>" if certificate else "", 2),
    ):
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count == times, f"{SITE.name} has {count} of {pattern!r}"
    return text


def render_machine(folder: Path) -> str:
    for name in ("temp", "cache"):
        (folder / name).mkdir(parents=True)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return MACHINE.format(
        folder=folder,
        temporary="\n".join(f"    {kind}_temp_path {folder}/temp/{kind};" for kind in kinds),
        forwarder=FORWARDER,
        # Started by root, nginx would leave to a user that may not read the tests' folders.
        user="user root;" if os.geteuid() == 0 else "",
    )


@contextmanager
def nginx(
    folder: Path, node_port: int, *, limits: bool = True, certificate: Path | None = None
) -> Iterator[Front]:
    """nginx with the rendered site in front of ``node_port``; without ``limits`` every client is
    one of those that it doesn't limit."""
    assert NGINX is not None, "a test that uses this is marked needs_nginx"
    folder.mkdir(parents=True, exist_ok=True)
    front = Front(free_port(), folder, plain_port=free_port())
    text = render_site(
        folder,
        port=front.port,
        plain_port=front.plain_port,
        inner_port=free_port(),
        node_port=node_port,
        certificate=certificate,
    )
    if not limits:
        text, count = re.subn(r"default +0;", "default 1;", text)
        assert count == 1
    (folder / "site.conf").write_text(text, encoding="utf-8")
    conf = folder / "nginx.conf"
    conf.write_text(render_machine(folder), encoding="utf-8")
    with Processes() as processes:
        processes.start(
            "nginx",
            NGINX,
            *("-p", str(folder), "-c", str(conf), "-e", "stderr", "-g", "daemon off;"),
            log=folder / "nginx.log",
        )

        def listens() -> bool:
            assert not processes.fallen(), front.log()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", front.port)) == 0

        wait_for(listens, "nginx to listen")
        yield front
    # One worker looks an answer up while another puts one with longer headers in its place: nginx
    # says this, and asks the node.
    grave = [line for line in front.log().splitlines() if "has too long header" not in line]
    for level in ("emerg", "alert", "crit"):
        assert [line for line in grave if f"[{level}]" in line] == []


@dataclass
class Seen:
    """A request as it reached the stub."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Stub:
    """Stands for a node: counts what reaches it, and answers as GET /tickers does.

    ``etag`` and ``body`` are what it has; with ``ticking`` the body is the time of the answer
    (time.monotonic) and the ETag differs each time. ``delay`` (seconds) holds answers back; with
    ``failing`` it answers 500; it ``compresses`` for who takes gzip or zstd.
    """

    port: int = 0
    etag: str = 'W/"a:1"'
    body: bytes = b'{"VCB":[]}'
    cache_control: str = "public, max-age=1, stale-while-revalidate=30"
    age: int = 0
    delay: float = 0.0
    ticking: bool = False
    failing: bool = False
    compresses: bool = True
    seen: list[Seen] = field(default_factory=list)

    def of(self, path: str) -> list[Seen]:
        return [request for request in self.seen if request.path.partition("?")[0] == path]

    def answer(self, request: Seen) -> tuple[int, dict[str, str], bytes]:
        if self.failing:
            return 500, {"Content-Type": "application/json"}, b'{"detail":"The node failed"}'
        etag, body = self.etag, self.body
        if self.ticking:
            now = time.monotonic()
            etag, body = f'W/"a:{now}"', str(now).encode()
        headers = {
            "ETag": etag,
            "Cache-Control": self.cache_control,
            "Vary": "Accept-Encoding",
            "X-Data-Age": str(self.age),
            "Content-Type": "application/json",
        }
        if request.headers.get("if-none-match") == etag:
            return 304, headers, b""
        coding = request.headers.get("accept-encoding", "")
        if self.compresses and coding in _COMPRESS:
            return 200, {**headers, "Content-Encoding": coding}, _COMPRESS[coding](body)
        return 200, headers, body


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.rfile.read(int(headers.get("content-length", 0)))
        request = Seen(self.command, self.path, headers)
        self.stub.seen.append(request)
        if self.stub.delay:
            time.sleep(self.stub.delay)
        status, answer, body = self.stub.answer(request)
        self.send_response(status)
        for name, value in {**answer, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names that the library calls

    def log_message(self, *_: object) -> None:
        """Says nothing: ``seen`` has it."""


class _Server(LoopbackServer):
    request_queue_size = 256
