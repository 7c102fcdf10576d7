"""The VCI client asks the exchange broker's chart API for bars.

One request is POST {base_url}chart/OHLCChart/gap-chart with {"timeFrame", "symbols", "to",
"countBack"}. Each attempt, retries included, takes from the request budget. The client returns
every valid bar and counts what it drops; whether a bar is merged is for the store to decide.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, overload
from urllib.parse import urlsplit

import requests

from tickers.bar import Bar
from tickers.bounded_http import Limits
from tickers.clock_skew import ClockSkew
from tickers.vci.answer import Answer, Interval, Point, PointInterval, frame, read
from tickers.vci.batch_size import BatchSize, split
from tickers.vci.door import Door
from tickers.vci.errors import AnswerError, DoorError
from tickers.vci.fetch import Failure, Fetch
from tickers.vci.request_budget import RequestBudget
from tickers.vci.rows import Rows
from tickers.vci.upstream import Retries, Upstream, UpstreamCounters

__all__ = ["Answer", "Failure", "UpstreamCounters", "VciClient"]

logger = logging.getLogger(__name__)

# A batch that has grown asks for this many bars at most: 10 MB, which take 30 s at 3 Mbit/s.
MOST_BARS = 200_000


class VciClient:
    """The client of one upstream asks one request at a time; it isn't for several threads.

    ``batch_size`` is symbols a request to begin with, and ``largest_batch`` how many it may grow to
    (by default it doesn't grow). Timeouts and ``backoff`` (the first retry's longest wait, doubled
    each time up to ``longest_backoff``) are in seconds. Once ``stop`` is set every wait ends, and
    StoppedError is raised. A ``session`` of the caller's own works, but can't be cut in the middle
    of a read. ``spellings`` and ``indices`` are the universe's: see answer.read. The upstream may
    be another node's door; its answers are refused if they came through the node whose id is
    ``own_id()``, or are more than ``oldest`` seconds old.
    """

    def __init__(
        self,
        *,
        base_url: str,
        budget: RequestBudget,
        batch_size: int,
        largest_batch: int = 0,
        stop: threading.Event,
        connect_timeout: float = 5.0,
        read_timeout: float = 15.0,
        total_timeout: float = 30.0,
        max_attempts: int = 4,
        backoff: float = 1.0,
        longest_backoff: float = 30.0,
        session: requests.Session | None = None,
        clock_skew: ClockSkew | None = None,
        spellings: Mapping[str, str] = MappingProxyType({}),
        indices: Collection[str] = (),
        own_id: Callable[[], str] = lambda: "",
        oldest: float = 300.0,
    ) -> None:
        self._own_id = own_id
        self._oldest = oldest
        self._spellings = spellings
        self._indices = indices
        self._upstream = Upstream(
            base_url=base_url,
            budget=budget,
            stop=stop,
            limits=Limits(connect_timeout, read_timeout, total_timeout),
            retries=Retries(max_attempts, backoff, longest_backoff),
            session=session,
            clock_skew=clock_skew,
        )
        self._rows = Rows()
        self._batches = BatchSize(size=batch_size, largest=largest_batch)
        self._pace = budget.pace
        self.source = source_name(base_url)

    @property
    def url(self) -> str:
        """The address of every request."""
        return self._upstream.url

    @property
    def counters(self) -> UpstreamCounters:
        return self._upstream.counters

    @property
    def batch_size(self) -> int:
        """The batch size in symbols, as learned so far."""
        return self._batches.size

    @property
    def learned(self) -> dict[str, int]:
        """The note that ``recall`` takes after a restart."""
        return self._batches.note()

    def recall(self, learned: Mapping[str, int]) -> None:
        """Take over the batch size that another process has learned."""
        self._batches.recall(learned)

    def least_interval(self, symbols: Sequence[str]) -> float:
        """Return the least seconds between two fetches of the symbols that the budget allows."""
        return len(self.batches(symbols)) * self._pace

    @property
    def absent(self) -> frozenset[str]:
        """Symbols that the upstream is known to leave out."""
        return self._batches.absent.current()

    @property
    def refused(self) -> frozenset[str]:
        """Symbols that make the upstream refuse a request; fetch leaves them out for a while."""
        return self._batches.refused.current()

    def close(self) -> None:
        self._upstream.close()

    def batches(self, symbols: Sequence[str]) -> list[list[str]]:
        """Return the batches that fetch would ask for now, if all goes well."""
        refused = self.refused
        wanted = [symbol for symbol in dict.fromkeys(symbols) if symbol not in refused]
        return split(wanted, self.batch_size)

    @overload
    def history(
        self, symbols: Sequence[str], *, interval: Literal["1D"], count_back: int, to: dt.datetime
    ) -> Answer[Bar]: ...
    @overload
    def history(
        self, symbols: Sequence[str], *, interval: PointInterval, count_back: int, to: dt.datetime
    ) -> Answer[Point]: ...
    def history(
        self, symbols: Sequence[str], *, interval: Interval, count_back: int, to: dt.datetime
    ) -> Answer[Any]:
        """Return the last ``count_back`` bars or points up to ``to``, from one request.

        Points are complete, except the newest, which grows. Raises UpstreamError when there is no
        usable answer, StoppedError when the node is stopping.
        """
        return self._history(symbols, interval=interval, count_back=count_back, to=to)

    @overload
    def fetch(
        self,
        symbols: Sequence[str],
        *,
        interval: Literal["1D"] = "1D",
        count_back: int,
        to: dt.datetime,
    ) -> Iterator[Answer[Bar] | Failure]: ...
    @overload
    def fetch(
        self, symbols: Sequence[str], *, interval: PointInterval, count_back: int, to: dt.datetime
    ) -> Iterator[Answer[Point] | Failure]: ...
    def fetch(
        self,
        symbols: Sequence[str],
        *,
        interval: Interval = "1D",
        count_back: int,
        to: dt.datetime,
    ) -> Iterator[Answer[Any] | Failure]:
        """Ask for all symbols batch by batch, each when the iteration comes to it.

        A batch without a usable answer gives a Failure, and the next one is asked for. The batch
        size and the symbols to leave out are learned on the way; a symbol is ``missing`` from an
        answer only when it didn't come in a smaller batch either. The iteration ends when the node
        stops.
        """
        wanted = [symbol for batch in self.batches(symbols) for symbol in batch]

        def ask(batch: Sequence[str]) -> Answer[Any]:
            return self._history(batch, interval=interval, count_back=count_back, to=to)

        most = max(self._batches.configured, MOST_BARS // count_back)
        fetch = Fetch(ask=ask, batches=self._batches, counters=self.counters, most=most)
        return fetch.run(wanted)

    def _history(
        self, symbols: Sequence[str], *, interval: Interval, count_back: int, to: dt.datetime
    ) -> Answer[Any]:
        if not symbols or count_back < 1 or to.tzinfo is None:
            raise ValueError("history needs symbols, a count_back of 1 or more and an aware time")
        asked = list(dict.fromkeys(symbols))
        bars = frame(interval)
        order = {
            "timeFrame": bars.source,
            "symbols": [self._spellings.get(symbol, symbol) for symbol in asked],
            "to": int(to.timestamp()),
            # One point more is asked for than wanted, as the oldest may lack its first bars.
            "countBack": count_back if bars.ratio == 1 else (count_back + 1) * bars.ratio,
        }
        reply = self._upstream.ask(order)
        try:
            door = Door.of(reply.headers)
            if door:
                door.admit(own_id=self._own_id(), oldest=self._oldest)
            answer = read(
                reply.body,
                asked=asked,
                interval=interval,
                spellings=self._spellings,
                indices=self._indices,
                last=self._rows,
            )
        except (AnswerError, DoorError) as error:
            self.counters.errors.add(error.kind)
            raise
        if door:
            answer = replace(answer, age=door.age)
        self._count(answer)
        self._batches.answered([*answer.series, *answer.errors])
        if bars.ratio == 1:
            return answer
        last = {symbol: points[-count_back:] for symbol, points in answer.series.items()}
        return replace(answer, series=last)

    def _count(self, answer: Answer[Any]) -> None:
        if answer.dropped:
            self.counters.dropped.update(answer.dropped)
            reasons = ", ".join(f"{why} ({n})" for why, n in answer.dropped.most_common(5))
            logger.warning("parts of an answer are dropped, the rest is used: %s", reasons)
        wrong = [error for symbol, error in answer.errors.items() if symbol not in answer.empty]
        if answer.empty:
            self.counters.errors.add("empty symbol", len(answer.empty))
        if wrong:
            self.counters.errors.add("wrong symbol", len(wrong))
            logger.warning(
                "symbols of an answer can't be read (%d), the others are used: %s",
                len(wrong),
                wrong[0],
            )


def source_name(base_url: str) -> str:
    """Return an upstream's host, with its port where that isn't the scheme's own."""
    parts = urlsplit(base_url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = parts.hostname or ""
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
