"""The connection to one peer: posts a body, and makes an answer of whatever the peer does.

No peer is trusted to end what it began: connecting, the TLS handshake, the answer's time and its
size all have limits. A token goes to the peer it is for, and never into a log.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from gossip import wire
from gossip.delivery.backoff import seconds_to_wait
from gossip.delivery.peer import Peer

MAX_ANSWER = 65_536  # bytes read of an answer's body

CONNECT_WITHIN = 2.0  # seconds
ANSWER_WITHIN = 10.0  # seconds, for the whole exchange


@dataclass(frozen=True, slots=True)
class PeerResponse:
    """``status`` None: no answer, and ``reason`` says why."""

    status: int | None
    reason: str
    retry_after: float = 0.0  # seconds
    judged: bool = False  # it is about what the bars say
    date: str | None = None  # its Date header


class Connection:
    """A connection to one peer, kept alive between requests.

    Plain http.client: requests and urllib3 bound the wait for each byte, not for the whole answer,
    and let no other thread end a request. It follows no redirect, keeps no cookie, and knows
    neither proxies nor ~/.netrc. ``cut`` may be called from any thread, the rest from one.
    """

    def __init__(self, peer: Peer, *, answer_within: float = ANSWER_WITHIN) -> None:
        self._path = peer.path
        self._headers = {"Content-Type": "application/json", "User-Agent": "aipriceaction-proxy"}
        if peer.token:
            self._headers["Authorization"] = f"Bearer {peer.token}"
        self._answer_within = answer_within
        self._http = _connection(peer)
        self._socket: socket.socket | None = None
        self._late = False
        self._closed = False

    def post(self, body: bytes) -> PeerResponse:
        """Send, and read the answer within the time it has; never raises for what a peer does."""
        self._late = False
        limit = threading.Timer(self._answer_within, self._shut)
        limit.daemon = True
        limit.start()
        try:
            return self._read(self._send(body))
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self.close()
            return PeerResponse(None, "no answer in time" if self._late else _reason(error))
        finally:
            limit.cancel()

    def cut(self) -> None:
        """End the request in hand, and every later one, at once."""
        self._closed = True
        self._shut()

    def close(self) -> None:
        self._http.close()
        self._socket = None

    def _shut(self) -> None:
        self._late = True
        for open_socket in (self._socket, self._http.sock):
            if open_socket is not None:
                # ssl's own shutdown would take the TLS state away from the thread that reads.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _send(self, body: bytes) -> http.client.HTTPResponse:
        was_open = self._is_open()
        try:
            return self._send_once(body)
        except (ConnectionError, ssl.SSLEOFError):
            if not was_open or self._late:
                raise
        # The peer had closed the idle connection, as servers do.
        self.close()
        return self._send_once(body)

    def _send_once(self, body: bytes) -> http.client.HTTPResponse:
        if not self._is_open():
            self._http.connect()
        self._socket = self._http.sock
        self._socket.settimeout(self._answer_within)
        if self._late or self._closed:
            raise TimeoutError
        # A peer may answer, and hang up, before it has read everything.
        with contextlib.suppress(BrokenPipeError):
            self._http.request("POST", self._path, body, self._headers)
        response = self._http.getresponse()
        if self._late:  # headers that were cut off look like complete ones
            raise TimeoutError
        return response

    def _is_open(self) -> bool:
        return self._http.sock is not None

    def _read(self, response: http.client.HTTPResponse) -> PeerResponse:
        """The status is the answer; of the body only so much is read as keeps the connection."""
        try:
            text = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException):
            text = b""
        if self._late or not response.isclosed():
            response.close()
            self.close()
        return PeerResponse(
            response.status,
            f"it answers {response.status}",
            retry_after=seconds_to_wait(response.getheader("Retry-After")),
            judged=wire.refuses_bars(text),
            date=response.getheader("Date"),
        )


def _connection(peer: Peer) -> http.client.HTTPConnection:
    host, port = peer.parts.hostname or "", peer.parts.port
    if peer.parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=CONNECT_WITHIN)
    # The machine's own authorities (or SSL_CERT_FILE), and those that come with requests.
    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return _TlsConnection(host, port, timeout=CONNECT_WITHIN, context=context)


class _TlsConnection(http.client.HTTPSConnection):
    """Shows its socket before the handshake, so that this can be cut too."""

    def __init__(self, *args: Any, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(*args, context=context, **options)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        sock = self._tls.wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = sock
        sock.do_handshake()


def _reason(error: Exception) -> str:
    """Why there was no answer, in our words: an error may quote what the peer sent."""
    return getattr(error, "strerror", None) or type(error).__name__
