"""One request to the chart API, ended in time whatever the upstream does.

requests limits connecting and each read, but an upstream that sends a byte now and then, in the
headers or in the body, would hold it for hours. So the request runs in a thread of its own, which
is left behind, its connection cut, when the whole takes too long or the node is stopping.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ReadTimeoutError
from urllib3.response import HTTPResponse

from tickers.vci.errors import (
    StoppedError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
    UpstreamTimeoutError,
)

STOP_GRACE = 3.0  # seconds that an answer in hand still has when the node is stopping
MAX_RESPONSE = 64_000_000  # bytes after decompression
_CHUNK = 65_536
_GLANCE = 0.05  # seconds between looks at the stop event while an answer is awaited
_here = threading.local()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds to connect, for each read, and for the whole answer; bytes of its body."""

    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    total_timeout: float = 30.0
    max_body: int = MAX_RESPONSE


@dataclass(frozen=True, slots=True)
class Reply:
    """``body`` is empty unless the status is 200."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def new_session() -> requests.Session:
    """A session whose requests can be cut, and that keeps no cookies: user agents change."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


def post(
    session: requests.Session,
    url: str,
    *,
    order: Mapping[str, Any],
    headers: Mapping[str, str],
    limits: Limits,
    stop: threading.Event,
) -> Reply:
    """POST ``order`` as JSON. Redirects aren't followed.

    Raises UnreachableError, UpstreamTimeoutError, TruncatedError, TooLargeError, and StoppedError
    when the node is stopping and the answer doesn't come within STOP_GRACE.
    """
    exchange = _Exchange(session, url, order=order, headers=headers, limits=limits)
    deadline = time.monotonic() + limits.total_timeout
    stopping = False
    while (left := deadline - time.monotonic()) > 0:
        if wait([exchange.reply], timeout=min(left, _GLANCE)).done:
            return exchange.reply.result()
        if stop.is_set() and not stopping:
            stopping = True
            deadline = min(deadline, time.monotonic() + STOP_GRACE)
    exchange.abandon()
    if stopping:
        raise StoppedError("the node is stopping; the upstream's answer isn't awaited")
    raise UpstreamTimeoutError(
        f"the upstream's answer wasn't complete after {limits.total_timeout:g} s"
    )


class _Exchange:
    """A request in a thread; ``reply`` is its outcome."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        *,
        order: Mapping[str, Any],
        headers: Mapping[str, str],
        limits: Limits,
    ) -> None:
        self.reply: Future[Reply] = Future()
        self._session, self._url, self._order, self._headers = session, url, order, headers
        self._limits = limits
        self._abandoned = threading.Event()
        self._socket: socket.socket | None = None
        threading.Thread(target=self._run, name="vci-request", daemon=True).start()

    def use(self, connection: socket.socket) -> None:
        """Called in the thread when the request was sent and its answer is awaited."""
        self._socket = connection
        if self._abandoned.is_set():
            raise ConnectionAbortedError("abandoned")

    def abandon(self) -> None:
        """End the thread, wherever it is: its next read finds the connection closed."""
        self._abandoned.set()
        if self._socket is not None:
            # The plain socket's shutdown: TLS has one that isn't made for two threads.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _run(self) -> None:
        _here.exchange = self
        try:
            reply = self._ask()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.reply.set_exception(error)
        else:
            self.reply.set_result(reply)

    def _ask(self) -> Reply:
        try:
            with self._session.post(
                self._url,
                json=self._order,
                headers=self._headers,
                timeout=(self._limits.connect_timeout, self._limits.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code == 200:
                    return Reply(200, response.headers, self._body(response))
                _drain(response)
                return Reply(response.status_code, response.headers, b"")
        except requests.ConnectTimeout:
            raise UpstreamTimeoutError(
                f"no connection to the upstream within {self._limits.connect_timeout:g} s"
            ) from None
        except requests.exceptions.ChunkedEncodingError as error:
            raise TruncatedError(f"the upstream broke its answer off ({_cause(error)})") from None
        except requests.exceptions.ContentDecodingError:
            raise TruncatedError("the upstream's answer can't be decompressed") from None
        except requests.RequestException as error:
            if isinstance(error, requests.Timeout) or _is_read_timeout(error):
                raise UpstreamTimeoutError(
                    f"the upstream sent nothing for {self._limits.read_timeout:g} s"
                ) from None
            raise UnreachableError(f"the upstream gave no answer ({_cause(error)})") from None

    def _body(self, response: requests.Response) -> bytes:
        parts, size = [], 0
        for part in response.iter_content(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > self._limits.max_body:
                raise TooLargeError(
                    f"the upstream's answer is larger than {self._limits.max_body} bytes"
                )
        return b"".join(parts)


def _drain(response: requests.Response) -> None:
    """Read a short body away, so that the connection can be used again."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and len(length) <= 5:
        with contextlib.suppress(requests.RequestException):
            _ = response.content


def _tell_exchange(connection: socket.socket) -> None:
    """Tell the exchange of this thread which socket its answer comes through."""
    exchange = getattr(_here, "exchange", None)
    if exchange is not None:
        exchange.use(connection)


class _Connection(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        _tell_exchange(self.sock)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        _tell_exchange(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def _is_read_timeout(error: requests.RequestException) -> bool:
    # requests raises a timeout in the middle of a body as a plain ConnectionError.
    return any(isinstance(inner, ReadTimeoutError) for inner in error.args)


def _cause(error: BaseException) -> str:
    """The name of the innermost error, which says more than the library's wrapping."""
    while True:
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        found = next((item for item in inner if isinstance(item, BaseException)), None)
        if found is None:
            return type(error).__name__
        error = found
