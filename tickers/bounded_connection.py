"""A bounded connection posts to one server again and again, each time within a deadline.

It uses plain http.client: a post through requests takes 2.3 times the processor time, and gossip is
the node's most frequent request. It follows no redirect, keeps no cookie, and knows neither proxies
nor ~/.netrc. Nothing is decoded. The deadline is that of tickers.bounded_exchange.
"""

import contextlib
import http.client
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import SplitResult

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tickers.bounded_body import SHORT_BODY
from tickers.bounded_exchange import Exchange, UnreachableError, show
from tickers.bounded_http import Reply

MAX_RECEIPT = 65_536  # bytes that are read of a 2xx body, which has a result for each bar

# The connection is passed from thread to thread, so that a thread that was left closes its own.
_Outcome = tuple[Reply, http.client.HTTPConnection | None]


class BoundedConnection:
    """A connection to the server of ``url`` that is kept alive between posts.

    ``connect_within`` (seconds) limits the connection and each step of the TLS handshake. ``cut``
    may be called from any thread, the other methods from one.
    """

    def __init__(self, url: SplitResult, *, connect_within: float) -> None:
        self._host, self._port = url.hostname or "", url.port
        self._connect_within = connect_within
        self._tls = _tls() if url.scheme == "https" else None
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
                exchange.settle((reply, None))
                text = response.read(MAX_RECEIPT if 200 <= reply.status <= 299 else SHORT_BODY)
                keep = response.isclosed() and not exchange.left
            return Reply(reply.status, reply.headers, text), connection if keep else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if exchange.settled is not None:
                return exchange.settled
            raise UnreachableError(_reason(error)) from None
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
                return _send(connection, path, body, headers)
            except (ConnectionError, ssl.SSLEOFError):
                if exchange.left:
                    raise
            # The server had closed the idle connection, as servers do.
            connection.close()
        connection.connect()
        # From here on the exchange's deadline counts.
        connection.sock.settimeout(None)
        return _send(connection, path, body, headers)

    def _new(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return _Connection(self._host, self._port, timeout=self._connect_within)
        return _TlsConnection(
            self._host, self._port, timeout=self._connect_within, context=self._tls
        )


def _send(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    # A server may answer, and hang up, before it has read everything.
    with contextlib.suppress(BrokenPipeError):
        connection.request("POST", path, body, dict(headers))
    return connection.getresponse()


def _tls() -> ssl.SSLContext:
    """Return a context with the machine's authorities (or SSL_CERT_FILE) and those of requests."""
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        show(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    """A TLS connection that shows its socket before the handshake, which can then be cut too."""

    def __init__(self, *args: Any, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(*args, context=context, **options)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        show(self.sock)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


def _reason(error: Exception) -> str:
    """Say why there was no answer, in words of ours: an error may quote what the server sent."""
    return getattr(error, "strerror", None) or type(error).__name__
