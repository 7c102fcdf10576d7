"""A bounded connection posts to one server again and again, each time within a deadline.

It uses plain http.client: a post through requests takes 2.3 times the processor time, and gossip is
the node's most frequent request. It follows no redirect, keeps no cookie, and opens no ~/.netrc.
Nothing is decoded. The deadline is that of tickers.bounded_exchange; an outbound proxy
(tickers.outbound_proxy) is within it.
"""

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tickers.bounded_body import SHORT_BODY
from tickers.bounded_exchange import Exchange, UnreachableError, show
from tickers.bounded_http import PROXY_WANTS_LOGIN, Reply
from tickers.outbound_proxy import OutboundProxy

MAX_RECEIPT = 65_536  # bytes that are read of a 2xx body, which has a result for each bar

# The connection is passed from thread to thread, so that a thread that was left closes its own.
_Outcome = tuple[Reply, http.client.HTTPConnection | None]


class BoundedConnection:
    """A connection to the server of ``url`` that is kept alive between posts.

    ``connect_within`` (seconds) limits the connection and each step of the TLS handshake. ``cut``
    may be called from any thread, the other methods from one.
    """

    def __init__(self, url: SplitResult, *, connect_within: float) -> None:
        self._tls = _tls() if url.scheme == "https" else None
        self._host, self._port = url.hostname or "", url.port or (443 if self._tls else 80)
        self._connect_within = connect_within
        self._proxy = OutboundProxy.to(url.geturl())
        # A proxy is told the whole address of a request that it passes on by itself.
        self._passed_on = self._proxy if self._tls is None else None
        self._before_path = f"http://{url.netloc}" if self._passed_on else ""
        self._idle: http.client.HTTPConnection | None = None
        self._exchange: Exchange[_Outcome] | None = None
        self._cut = False

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, within: float) -> Reply:
        """Send ``body`` and read the answer, in ``within`` seconds together.

        The reply's body is raw, and only its beginning: MAX_RECEIPT bytes if the status is 2xx,
        else SHORT_BODY. A body that breaks off, or takes too long, counts as empty, since the
        status is the answer. Raises UnreachableError, TimedOutError, and StoppedError after a cut.
        """
        idle, self._idle = self._idle, None
        exchange = self._exchange = Exchange(
            lambda exchange: self._ask(exchange, idle, path, body, headers)
        )
        if self._cut:
            exchange.cut()
        reply, self._idle = exchange.wait(within)
        return reply

    def cut(self) -> None:
        """End the present post, and every later one, at once."""
        self._cut = True
        if self._exchange is not None:
            self._exchange.cut()

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _ask(
        self,
        exchange: Exchange[_Outcome],
        idle: http.client.HTTPConnection | None,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> _Outcome:
        connection = idle or self._new()
        keep = False
        try:
            with self._send(exchange, connection, path, body, headers) as response:
                reply = Reply(response.status, cast("Mapping[str, str]", response.headers))
                if self._passed_on and reply.status == PROXY_WANTS_LOGIN:
                    raise UnreachableError(self._passed_on.refusal(reply.status))
                exchange.settle((reply, None))
                text = response.read(MAX_RECEIPT if 200 <= reply.status <= 299 else SHORT_BODY)
                keep = response.isclosed() and not exchange.left
            return Reply(reply.status, reply.headers, text), connection if keep else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if exchange.settled is not None:
                return exchange.settled
            reason = _reason(error)
            if self._proxy:
                reason = self._proxy.explain(error, reason)
            raise UnreachableError(reason) from None
        finally:
            if not keep:
                connection.close()

    def _send(
        self,
        exchange: Exchange[_Outcome],
        connection: http.client.HTTPConnection,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        if connection.sock is not None:
            show(connection.sock)
            try:
                return self._post(connection, path, body, headers)
            except (ConnectionError, ssl.SSLEOFError):
                if exchange.left:
                    raise
            # The server had closed the idle connection, as servers do.
            connection.close()
        connection.connect()
        # From here on the exchange's deadline counts.
        connection.sock.settimeout(None)
        return self._post(connection, path, body, headers)

    def _post(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        to_proxy = self._passed_on.headers if self._passed_on else {}
        # A server may answer, and hang up, before it has read everything.
        with contextlib.suppress(BrokenPipeError):
            connection.request("POST", self._before_path + path, body, {**headers, **to_proxy})
        return connection.getresponse()

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        if self._proxy:
            host, port = self._proxy.host, self._proxy.port
        if self._tls is None:
            return _Connection(host, port, timeout=self._connect_within)
        connection = _TlsConnection(host, port, timeout=self._connect_within, context=self._tls)
        if self._proxy:
            connection.set_tunnel(self._host, self._port, dict(self._proxy.headers))
        return connection


class _Connection(http.client.HTTPConnection):
    """A connection that shows its socket before it asks for a tunnel, which can then be cut too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = _connect  # http.client has no other place for this

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]  # its types leave it out
        show(self.sock)  # a tunnel that was cut looks like one that is open


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    pass


def _connect(*arguments: Any) -> socket.socket:
    connection = socket.create_connection(*arguments)
    show(connection)
    return connection


def _tls() -> ssl.SSLContext:
    """Return a context with the machine's authorities (or SSL_CERT_FILE) and those of requests."""
    context = ssl.create_default_context()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    if Path(bundle).is_dir():
        context.load_verify_locations(capath=bundle)
    else:
        context.load_verify_locations(cafile=bundle)
    return context


def _reason(error: Exception) -> str:
    """Say why there was no answer, in words of ours: an error may quote what the server sent."""
    return getattr(error, "strerror", None) or type(error).__name__
