"""An outbound proxy on loopback, as companies have them: requests to others go through it.

It leads each host that it knows to a server of the test. No name service knows those hosts, so what
arrives at the server has come through the proxy.
"""

import base64
import contextlib
import http.client
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simulator.loopback import LoopbackServer

TIMEOUT = 10.0  # seconds


class ForwardProxy(LoopbackServer):
    """The proxy leads the host ``name`` to 127.0.0.1:``hosts[name]``, whatever port was asked for.

    ``seen`` has method and target of each request, ``headers`` its headers. With ``login``
    (USER:PASSWORD) it answers 407 to who doesn't say that.
    """

    def __init__(self, hosts: Mapping[str, int], *, login: str = "") -> None:
        super().__init__(_Handler)
        self.hosts = dict(hosts)
        self.login = login
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.closing.set()
        super().stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ForwardProxy

    def do_CONNECT(self) -> None:
        port = self._port_of(self.path.rpartition(":")[0])
        self.close_connection = True
        if port is None:
            return
        with socket.create_connection(("127.0.0.1", port)) as target:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._pump(target)

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        port = self._port_of(address.hostname or "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if port is None:
            return
        headers = {name: v for name, v in self.headers.items() if name != "Proxy-Authorization"}
        target = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        with contextlib.closing(target):
            path = address._replace(scheme="", netloc="").geturl()
            target.request(self.command, path, body, headers)
            response = target.getresponse()
            self._answer(response.status, response.read())

    def do_GET(self) -> None:
        self.do_POST()

    def _port_of(self, host: str) -> int | None:
        """The port that ``host`` leads to; None when the request was answered here."""
        self.server.seen.append((self.command, self.path))
        self.server.headers.append(dict(self.headers))
        said = base64.b64encode(self.server.login.encode()).decode()
        if self.server.login and self.headers.get("Proxy-Authorization") != f"Basic {said}":
            self._answer(407)
        elif host not in self.server.hosts:
            self._answer(502)
        else:
            return self.server.hosts[host]
        return None

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pump(self, target: socket.socket) -> None:
        while not self.server.closing.is_set():
            ready, _, _ = select.select([self.connection, target], [], [], 0.2)
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                (self.connection if source is target else target).sendall(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def tls(host: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for ``host``, and the certificate, which vouches for itself.

    The openssl program makes it.
    """
    made, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={host}"),
            *("-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context, made
