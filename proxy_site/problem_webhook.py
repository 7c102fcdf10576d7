"""The problem webhook: the leading worker posts what is new about the node's problems to a URL.

It is for operators who have no monitoring. It runs in a thread of its own, asks within limits, and
posts once a minute at most. The URL is a secret: neither the log nor /health shows it. A worker
that is dead can't tell that it is, and where the store is away the worker that led last tells it.
"""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from django.db import close_old_connections, connections

from proxy_site.problem_news import Known, News, Report
from tickers import bounded_http
from tickers.bounded_http import HttpError, Limits, StoppedError, new_session
from tickers.store.store import FencedError, Store

logger = logging.getLogger(__name__)

LOOK_EVERY = 10.0  # seconds
PAUSE = 60.0  # seconds between two posts, doubled with each that fails in a row
LONGEST_PAUSE = 3_600.0
LIMITS = Limits(
    connect_timeout=5, read_timeout=10, total_timeout=20, stop_grace=1, max_body=1_000_000
)
FAILS = "the problem webhook fails"  # how its own problem begins, which it doesn't tell


class ProblemWebhook:
    """The webhook at ``url`` of the node ``name``.

    ``problems`` returns the node's problems in words, and raises RedisError when the store is away.
    """

    def __init__(
        self,
        *,
        url: str,
        name: str,
        environment: str,
        store: Store,
        problems: Callable[[], list[str]],
        stop: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._name = name
        self._environment = environment
        self._store = store
        self._problems = problems
        self._stop = stop
        self._monotonic = monotonic
        self._wall_time = wall_time
        self._session = new_session()
        self._fence: str | None = None  # of this worker's lead
        self._news: News | None = None  # of the lead that it was read under
        self._read_under = ""
        self._led = False  # when the store was reached last
        self._away = News()  # of the store, which only this process knows
        self._failures = 0  # posts in a row
        self._next_at = float("-inf")  # of the next post
        self._why = ""

    @property
    def failure(self) -> str:
        """Why the last post failed; empty where it didn't."""
        return self._why

    def lead(self, fence: str) -> None:
        self._fence = fence

    def retire(self) -> None:
        self._fence = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="problem-webhook", daemon=True).start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(LOOK_EVERY):
                try:
                    close_old_connections()
                    self.turn()
                except Exception as error:  # noqa: BLE001 - its text may hold the URL
                    logger.error("a look at the node's problems failed (%s)", type(error).__name__)
        finally:
            connections.close_all()

    def turn(self) -> None:
        """Look once, and post what is new if a post is due."""
        self._look()
        if self._monotonic() < self._next_at:
            return
        now = self._wall_time()
        open_news = [news for news in (self._away, self._news) if news is not None]
        reports = [news.report(now=now) for news in open_news]
        if not any(reports):
            return
        try:
            self._post(reports)
        except StoppedError:
            return
        except HttpError as error:
            self._failed(str(error))
            return
        self._failures, self._why = 0, ""
        self._next_at = self._monotonic() + PAUSE
        for news, report in zip(open_news, reports, strict=True):
            news.told(report)
        self._remember()

    def _look(self) -> None:
        fence, away = self._fence, []
        try:
            if fence is None:
                self._store.client.ping()
                self._news = None
            else:
                if self._news is None or fence != self._read_under:
                    self._news, self._read_under = News(self._store.told_problems()), fence
                problems = [words for words in self._problems() if not words.startswith(FAILS)]
                self._news.look(problems, now=self._wall_time())
            self._led = fence is not None
        except redis.RedisError as error:
            if self._led:
                away.append(f"the store can't be reached ({type(error).__name__})")
        self._away.look(away, now=self._wall_time())

    def _post(self, reports: list[Report]) -> None:
        reply = bounded_http.ask(
            self._session,
            "POST",
            self._url,
            json=payload(reports, name=self._name, environment=self._environment),
            limits=LIMITS,
            stop=self._stop,
        )
        if not 200 <= reply.status <= 299:
            raise HttpError(f"answered {reply.status}")

    def _failed(self, why: str) -> None:
        pause = min(PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE)
        self._failures += 1
        self._why = why
        self._next_at = self._monotonic() + pause
        logger.warning("%s: it %s; it is told again in %.0f s", FAILS, why, pause)

    def _remember(self) -> None:
        """Keep what was told for the next leader; where that fails, it may tell it again."""
        if self._news is None:
            return
        try:
            self._store.remember_told_problems(self._news.note(), fence=self._read_under)
        except (redis.RedisError, FencedError) as error:
            logger.info("which problems were told isn't kept (%s)", type(error).__name__)


def payload(reports: Sequence[Report], *, name: str, environment: str) -> dict[str, Any]:
    """Return the JSON of a post: ``text`` for chats, and each piece of news for programs."""
    began, lasting, ended = [], [], []
    at = max(report.at for report in reports)
    for report in reports:
        began += [_facts(known) for known in report.began]
        lasting += [{**_facts(known), "days": known.days_at(at)} for known in report.lasting]
        ended += [{**_facts(known), "until": _utc(known.gone_at or at)} for known in report.ended]
    lines = [
        *(f"began: {one['problem']}" for one in began),
        *(f"still there after {_days(one['days'])}: {one['problem']}" for one in lasting),
        *(f"ended: {one['problem']}" for one in ended),
    ]
    return {
        # Chats of Slack's kind take what stands in <> for a link, or a call to everybody.
        "text": _escaped("\n".join(f"{name}: {line}" for line in lines)),
        "node": name,
        "environment": environment,
        "at": _utc(at),
        "began": began,
        "lasting": lasting,
        "ended": ended,
    }


def _facts(known: Known) -> dict[str, Any]:
    return {"problem": known.words, "kind": known.kind, "since": _utc(known.since)}


def _days(count: int) -> str:
    return "a day" if count == 1 else f"{count} days"


def _utc(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
