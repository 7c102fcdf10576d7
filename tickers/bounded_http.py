"""The bounded HTTP client asks the upstream and core networks, which may answer in any way.

It uses requests. The whole exchange has a deadline and can be stopped (tickers.bounded_exchange),
and the body is decoded within limits (tickers.bounded_body). No redirect is followed, no cookie
kept, and ~/.netrc isn't opened. An outbound proxy (tickers.outbound_proxy) is within the same
limits. Peers are sent to by tickers.bounded_connection.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tickers.bounded_body import ACCEPT_ENCODING, Examine, read_body, read_short
from tickers.bounded_exchange import (
    EncodingError,
    Exchange,
    HttpError,
    StoppedError,
    TimedOutError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
    show,
)
from tickers.outbound_proxy import OutboundProxy

__all__ = [
    "EncodingError",
    "HttpError",
    "Limits",
    "Reply",
    "StoppedError",
    "TimedOutError",
    "TooLargeError",
    "TruncatedError",
    "UnreachableError",
    "ask",
    "new_session",
]

PROXY_WANTS_LOGIN = 407  # a status of proxies only


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an exchange: seconds to connect, for each read, for the whole, and for the
    present answer when the node stops; bytes of the decoded body."""

    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    total_timeout: float = 30.0
    stop_grace: float = 3.0
    max_body: int = 64_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer; its ``body`` is decoded, and a short start of it unless the status is 200."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def new_session() -> requests.Session:
    """Make a session for ``ask``."""
    session = _Session()
    session.headers["Accept-Encoding"] = ACCEPT_ENCODING
    return session


def ask(
    session: requests.Session,
    method: str,
    url: str,
    *,
    limits: Limits,
    stop: threading.Event,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: object = None,
    examine: Examine | None = None,
) -> Reply:
    """Send one request and return the answer; ``examine`` gets each decoded piece of a body.

    Raises subclasses of HttpError, StoppedError when ``stop`` is set and no answer comes within the
    grace, and what ``examine`` raises. A session that isn't from ``new_session`` can't be cut: its
    threads and redirects are as requests has them.
    """

    def work(exchange: Exchange[Reply]) -> Reply:
        with session.request(
            method,
            url,
            headers=headers,
            params=params,
            json=json,
            timeout=(limits.connect_timeout, limits.read_timeout),
            allow_redirects=False,
            stream=True,
        ) as response:
            reply = Reply(response.status_code, response.headers)
            if reply.status == PROXY_WANTS_LOGIN and (proxy := OutboundProxy.to(url)):
                raise UnreachableError(f"gave no answer ({proxy.refusal(reply.status)})")
            if reply.status == 200:
                body = read_body(response.raw, max_body=limits.max_body, examine=examine)
                return Reply(200, response.headers, body)
            exchange.settle(reply)
            return Reply(reply.status, reply.headers, _start_of(response))

    def bounded(exchange: Exchange[Reply]) -> Reply:
        try:
            return work(exchange)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _translated(error, limits, OutboundProxy.to(url)) from None

    return Exchange(bounded).wait(limits.total_timeout, stop=stop, grace=limits.stop_grace)


def _start_of(response: requests.Response) -> bytes:
    """Read a short body, so that the connection can be used again, and return it.

    After the start of a longer body the connection is closed. It is empty if it breaks off.
    """
    try:
        return read_short(response.raw)
    except urllib3.exceptions.HTTPError:
        return b""


def _translated(error: Exception, limits: Limits, proxy: OutboundProxy | None) -> HttpError:
    if isinstance(error, requests.ConnectTimeout):
        return TimedOutError(f"gave no connection within {limits.connect_timeout:g} s")
    if isinstance(error, requests.Timeout | urllib3.exceptions.ReadTimeoutError):
        return TimedOutError(f"sent nothing for {limits.read_timeout:g} s")
    if isinstance(error, urllib3.exceptions.HTTPError):  # from the body, which requests didn't read
        return TruncatedError(f"broke its answer off ({_cause(error)})")
    cause = proxy.explain(error, _cause(error)) if proxy else _cause(error)
    return UnreachableError(f"gave no answer ({cause})")


def _cause(error: BaseException) -> str:
    """Return the name of the innermost error, which says more than the ones that wrap it."""
    while True:
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        found = next((item for item in inner if isinstance(item, BaseException)), None)
        if found is None:
            return type(error).__name__
        error = found


# --- Additions to requests ------------------------------------------------------------------------


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.auth = _NoCredentials()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, since requests reads a redirect's whole body even if it doesn't follow."""


class _NoCredentials(AuthBase):
    """An authentication without credentials, which keeps requests from reading ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Connection(HTTPConnection):
    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        show(connection)
        return connection

    def _tunnel(self) -> None:
        super()._tunnel()
        show(self.sock)  # a tunnel that was cut looks like one that is open

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            show(self.sock)
        super().request(*args, **options)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
