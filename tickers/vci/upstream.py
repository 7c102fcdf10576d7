"""The upstream is asked as a browser would, within the request budget, and with retries.

Each attempt, retries included, takes from the request budget. 403, 429, 5xx, network errors and
timeouts are retried with exponential backoff and full jitter. A Retry-After delays every later
attempt, whatever that asks for.
"""

import itertools
import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from tickers import bounded_http
from tickers.bounded_body import ACCEPT_ENCODING
from tickers.bounded_http import Limits, Reply, new_session
from tickers.bounded_json import JsonError, Shape
from tickers.clock_skew import ClockSkew, SourceKind
from tickers.retry_after import seconds_asked
from tickers.vci.errors import (
    AnswerError,
    NotJsonError,
    StatusError,
    StoppedError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
    status_error,
)
from tickers.vci.last_hour import LastHour
from tickers.vci.request_budget import RequestBudget

logger = logging.getLogger(__name__)

PATH = "chart/OHLCChart/gap-chart"
SITE = "https://trading.vietcap.com.vn"
MAX_RETRY_AFTER = 120.0  # seconds: the longest wait that a Retry-After can ask for

# These browsers send no sec-ch-ua headers, which could contradict the agent.
USER_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/26.1 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
)
_HEADERS = {
    "Accept": "application/json, text/plain, */*",
    "Accept-Encoding": ACCEPT_ENCODING,  # only what is decoded here; browsers name more
    "Accept-Language": "vi-VN,vi;q=0.9,en-US;q=0.8,en;q=0.7",
    "Cache-Control": "no-cache",
    "Origin": SITE,
    "Referer": f"{SITE}/",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
_RANDOM = random.SystemRandom()
_ERRORS: dict[type[bounded_http.HttpError], type[UpstreamError]] = {
    bounded_http.UnreachableError: UnreachableError,
    bounded_http.TimedOutError: UpstreamTimeoutError,
    bounded_http.TruncatedError: TruncatedError,
    bounded_http.TooLargeError: TooLargeError,
    bounded_http.EncodingError: AnswerError,
}


@dataclass(slots=True)
class UpstreamCounters:
    """The counters of one upstream.

    ``requests`` counts attempts since its client was made. The others are of the last hour:
    ``attempts`` (those after a first one are "retries" too), ``errors`` (failed attempts and wrong
    answers by kind) and ``dropped`` (unused bars by reason).
    """

    requests: int = 0
    attempts: LastHour = field(default_factory=LastHour)
    errors: LastHour = field(default_factory=LastHour)
    dropped: LastHour = field(default_factory=LastHour)

    def last_hour(self) -> dict[str, Any]:
        """Return the counts of the last hour as /health shows them."""
        attempts = self.attempts.counts()
        return {
            "requests": attempts["requests"],
            "retries": attempts["retries"],
            "errors": dict(self.errors.counts()),
            "dropped": dict(self.dropped.counts()),
        }


@dataclass(frozen=True, slots=True)
class Retries:
    """The number of attempts, and the longest waits between them, in seconds.

    ``backoff`` is the longest wait before the first retry. It doubles with each retry, up to
    ``longest_backoff``.
    """

    max_attempts: int = 4
    backoff: float = 1.0
    longest_backoff: float = 30.0

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of ``attempt`` (the first is 1)."""
        return _RANDOM.uniform(0, min(self.longest_backoff, self.backoff * 2 ** (attempt - 1)))


class Upstream:
    """One upstream at ``base_url``, asked at ``url``.

    ``session`` is for callers with connections of their own; only the default one can be cut in the
    middle of a read.
    """

    def __init__(
        self,
        *,
        base_url: str,
        budget: RequestBudget,
        stop: threading.Event,
        limits: Limits,
        retries: Retries,
        session: requests.Session | None = None,
        clock_skew: ClockSkew | None = None,
    ) -> None:
        self.counters = UpstreamCounters()
        self.url = f"{base_url.rstrip('/')}/{PATH}"
        self._budget = budget
        self._stop = stop
        self._limits = limits
        self._retries = retries
        self._session = session or new_session()
        self._agents = itertools.cycle(_RANDOM.sample(USER_AGENTS, len(USER_AGENTS)))
        self._not_before = 0.0
        self._clock_skew = clock_skew or ClockSkew()

    def close(self) -> None:
        self._session.close()

    def ask(self, order: Mapping[str, Any]) -> Reply:
        """Return the answer with status 200 to ``order``, the JSON body of a request.

        Raises UpstreamError when the last attempt failed, StoppedError when the node is stopping.
        """
        attempt = 1
        while True:
            try:
                return self._attempt(order)
            except UpstreamError as error:
                self.counters.errors.add(error.kind)
                if isinstance(error, StatusError) and error.retry_after is not None:
                    self._not_before = time.monotonic() + min(error.retry_after, MAX_RETRY_AFTER)
                if not error.worth_retrying or attempt >= self._retries.max_attempts:
                    raise
                self._pause(error, attempt)
            attempt += 1
            self.counters.attempts.add("retries")

    def _attempt(self, order: Mapping[str, Any]) -> Reply:
        self._wait(self._not_before - time.monotonic())
        if not self._budget.take(stop=self._stop):
            raise StoppedError("the node is stopping")
        self.counters.requests += 1
        self.counters.attempts.add("requests")
        reply = self._post(order)
        self._clock_skew.observe(
            kind=SourceKind.UPSTREAM, date=reply.headers.get("Date"), age=reply.headers.get("Age")
        )
        if reply.status != 200:
            retry_after = seconds_asked(reply.headers.get("Retry-After"))
            raise status_error(reply.status, retry_after=retry_after)
        return reply

    def _post(self, order: Mapping[str, Any]) -> Reply:
        try:
            return bounded_http.ask(
                self._session,
                "POST",
                self.url,
                json=order,
                headers={**_HEADERS, "User-Agent": next(self._agents)},
                limits=self._limits,
                stop=self._stop,
                examine=Shape().feed,
            )
        except JsonError as error:
            raise NotJsonError(
                f"the upstream answered 200 with JSON that can't be read: {error}"
            ) from None
        except bounded_http.StoppedError as error:
            raise StoppedError(str(error)) from None
        except bounded_http.HttpError as error:
            raise _ERRORS[type(error)](f"the upstream {error}") from None

    def _pause(self, error: UpstreamError, attempt: int) -> None:
        pause = max(self._retries.pause(attempt), self._not_before - time.monotonic())
        logger.warning(
            "%s; asking again in %.1f s (attempt %d of %d)",
            error,
            pause,
            attempt + 1,
            self._retries.max_attempts,
        )
        self._wait(pause)

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise StoppedError("the node is stopping")
