"""The problem webhook, told to a real server on loopback: what comes there, when, and what doesn't
show the URL."""

import datetime as dt
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from django.conf import settings

from proxy_site import problem_webhook
from proxy_site.health import leaders_problems
from proxy_site.problem_webhook import LONGEST_PAUSE, PAUSE, ProblemWebhook
from tests.support.doors import (
    CLIENT,
    YESTERDAY,
    a_bar,
    empty_market,
    fill_market,
    lead,
    merge_core,
    store_lost,
)
from tests.support.proxies import (
    BadPeer,
    Door,
    Reply,
    Request,
    answer_with_garbage,
    bad_peer,
    close_at_once,
    never_finish,
    take,
)
from tickers.bounded_http import Limits
from tickers.store.store import Store

__all__ = ["empty_market"]  # a fixture

SECRET = "/hooks/T0P-SECRET?key=HUSH-HUSH"
NOON = 1_755_234_000.0  # 2025-08-15T05:00:00Z
LATE = "the last cycle had errors: it <failed> & more"


@dataclass
class Bench:
    """A webhook whose times are the test's, and whose node has these problems."""

    store: Store
    url: str
    problems: list[str] = field(default_factory=list)
    now: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.webhook = self.another()

    def another(self) -> ProblemWebhook:
        return ProblemWebhook(
            url=f"{self.url}{SECRET}",
            name="node-a",
            environment="staging",
            store=self.store,
            problems=self._problems,
            stop=self.stop,
            monotonic=lambda: self.now,
            wall_time=lambda: NOON + self.now,
        )

    def _problems(self) -> list[str]:
        self.store.client.ping()
        return self.problems

    def turns(self, count: int = 2, *, after: float = 10, of: ProblemWebhook | None = None) -> None:
        for _ in range(count):
            self.now += after
            (of or self.webhook).turn()


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(take) as door:
        yield door


@pytest.fixture
def bench(empty_market: Store, door: Door) -> Iterator[Bench]:
    bench = Bench(empty_market, door.url)
    with lead(empty_market) as fence:
        bench.webhook.lead(fence)
        yield bench


def requests(door: Door) -> list[Request]:
    return [request for request, _ in door.seen]


def posts(door: Door) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in requests(door)]


class TestTold:
    def test_a_problem_that_begins_and_one_that_ends(self, bench: Bench, door: Door) -> None:
        bench.problems = [LATE]
        bench.turns(2)
        (request,) = requests(door)
        assert (request.path, request.content_type) == (SECRET, "application/json")
        began = {
            "problem": LATE,
            "kind": "the last cycle had errors",
            "since": "2025-08-15T05:00:10Z",
        }
        assert json.loads(request.body) == {
            "text": "node-a: began: the last cycle had errors: it &lt;failed&gt; &amp; more",
            "node": "node-a",
            "environment": "staging",
            "at": "2025-08-15T05:00:20Z",
            "began": [began],
            "lasting": [],
            "ended": [],
        }
        bench.problems = []
        bench.turns(10)
        _, ended = posts(door)
        assert ended["ended"] == [{**began, "until": "2025-08-15T05:00:30Z"}]
        assert ended["text"].startswith("node-a: ended: ")
        assert (ended["began"], ended["lasting"]) == ([], [])

    def test_one_that_lasts_a_day(self, bench: Bench, door: Door) -> None:
        bench.problems = [LATE]
        bench.turns(2)
        bench.turns(49, after=3_600)
        days = [one["lasting"][0]["days"] for one in posts(door) if one["lasting"]]
        assert days == [1, 2]
        assert "still there after 2 days: " in posts(door)[-1]["text"]

    def test_once_a_minute_at_most(self, bench: Bench, door: Door) -> None:
        sent: list[float] = []
        for turn in range(60):
            bench.problems = [f"problem {'x' * (turn // 2)}"]
            bench.turns(1)
            sent += [bench.now] * (len(requests(door)) - len(sent))
        assert len(sent) > 5
        assert min(b - a for a, b in itertools.pairwise(sent)) >= PAUSE

    def test_not_what_the_webhook_itself_lacks(self, bench: Bench, door: Door) -> None:
        bench.problems = [f"{problem_webhook.FAILS}: it answered 404"]
        bench.turns(5)
        assert requests(door) == []


class TestWhoTells:
    def test_a_standby_tells_nothing(self, bench: Bench, door: Door) -> None:
        bench.webhook.retire()
        bench.problems = [LATE]
        bench.turns(5)
        assert requests(door) == []

    def test_the_next_leader_goes_on_where_the_last_one_was(self, bench: Bench, door: Door) -> None:
        bench.problems = [LATE]
        bench.turns(2)
        fence = bench.store.leaders_fence()
        assert fence
        next_one = bench.another()
        next_one.lead(fence)
        bench.turns(10, of=next_one)
        assert len(requests(door)) == 1
        bench.problems = []
        bench.turns(2, of=next_one)
        assert [len(one["ended"]) for one in posts(door)] == [0, 1]

    def test_that_the_store_is_away_is_told_by_who_led(self, bench: Bench, door: Door) -> None:
        standby = bench.another()
        bench.turns(1)
        bench.turns(1, of=standby)
        with store_lost():
            bench.webhook.retire()  # the lease runs out
            bench.turns(4)
            bench.turns(4, of=standby)
        (began,) = posts(door)
        assert began["began"][0]["problem"] == "the store can't be reached (ConnectionError)"
        bench.turns(10)
        assert [len(one["ended"]) for one in posts(door)] == [0, 1]


class TestFailures:
    @pytest.mark.parametrize("status", [302, 400, 404, 410, 429, 500, 503])
    def test_are_told_again_later_and_later(self, status: int, bench: Bench, door: Door) -> None:
        door.answer = lambda request: Reply(status, headers={"Location": "/elsewhere"})
        bench.problems = [LATE]
        sent: list[float] = []
        for _ in range(2_000):
            bench.turns(1)
            sent += [bench.now] * (len(requests(door)) - len(sent))
        pauses = [b - a for a, b in itertools.pairwise(sent)]
        assert pauses[:3] == [60, 120, 240]
        assert max(pauses) == LONGEST_PAUSE
        assert {request.path for request in requests(door)} == {SECRET}
        assert bench.webhook.failure == f"answered {status}"
        door.answer = take
        bench.turns(1, after=LONGEST_PAUSE)
        assert bench.webhook.failure == ""
        assert posts(door)[-1]["began"][0]["since"] == "2025-08-15T05:00:10Z"
        bench.turns(5, after=LONGEST_PAUSE)
        assert posts(door)[-2]["began"] == posts(door)[-1]["began"], "it was told the last time"

    def test_are_a_problem_in_health(self, empty_market: Store, db: None) -> None:
        status = {"mode": "core", "told_at": time.time(), "interval": 5, "cycle": {}}
        with lead(empty_market) as fence:
            empty_market.write_status({**status, "webhook_failure": "answered 404"}, fence=fence)
        problems = CLIENT.get("/health").json()["problems"]
        assert "the problem webhook fails: it answered 404" in problems

    def test_end_in_time_whatever_the_receiver_does(
        self, empty_market: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(problem_webhook, "LIMITS", Limits(1, 0.5, 1, 0.1))
        with bad_peer(never_finish) as peer, lead(empty_market) as fence:
            bench = Bench(empty_market, peer.url, problems=[LATE])
            bench.webhook.lead(fence)
            before = time.monotonic()
            bench.turns(2)
            assert time.monotonic() - before < 3
            assert "answer" in bench.webhook.failure


def answer_with_odd_headers(peer: BadPeer, connection: Any) -> None:
    connection.recv(65_536)
    peer.send(connection, b"HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 0\r\n\r\n")


class TestSecret:
    @pytest.mark.parametrize(
        "behaviour", [answer_with_odd_headers, answer_with_garbage, close_at_once, None]
    )
    def test_no_failure_shows_the_url(
        self,
        behaviour: Callable[[BadPeer, Any], None] | None,
        empty_market: Store,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(problem_webhook, "LIMITS", Limits(0.3, 0.3, 0.5, 0.1))
        with bad_peer(behaviour) as peer, lead(empty_market) as fence:
            bench = Bench(empty_market, peer.url, problems=[LATE])
            bench.webhook.lead(fence)
            with caplog.at_level(logging.INFO, logger="proxy_site"):
                bench.turns(3, after=LONGEST_PAUSE)
        for told in (caplog.text, *capfd.readouterr(), bench.webhook.failure):
            assert "T0P-SECRET" not in told
            assert "HUSH" not in told

    def test_neither_does_a_url_that_is_none(
        self, empty_market: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        with lead(empty_market) as fence:
            bench = Bench(empty_market, f"http://{'a' * 300}.test", problems=[LATE])
            bench.webhook.lead(fence)
            bench.turns(2)
        assert bench.webhook.failure
        assert "SECRET" not in caplog.text + bench.webhook.failure

    def test_neither_do_the_settings(self) -> None:
        assert type(settings.PROBLEM_WEBHOOK).__name__ == "Secret"


class TestALeadersProblems:
    pytestmark = pytest.mark.django_db

    def test_are_those_of_health(self, empty_market: Store) -> None:
        """But for what only a web process knows."""
        for is_filled in (False, True):
            if is_filled:
                fill_market()
            status = {
                "mode": "core",
                "told_at": time.time(),
                "interval": 5,
                "cycle": {"errors": ["it failed"], "missing": ["FPT"]},
            }
            with lead(empty_market) as fence:
                empty_market.write_status(status, fence=fence)
                assert leaders_problems() == CLIENT.get("/health").json()["problems"]

    def test_name_stale_symbols(self, empty_market: Store) -> None:
        days = [YESTERDAY - dt.timedelta(days=back) for back in (2, 1, 0)]
        merge_core(*(a_bar(s, day=day) for day in days for s in ("VCB", "PVS", "VNINDEX")))
        merge_core(a_bar("ACV", day=days[0]))
        (stale,) = [words for words in leaders_problems() if words.startswith("stale")]
        assert stale == "stale symbols (1): ACV since 2025-08-13"
        assert stale in CLIENT.get("/health").json()["problems"]

    def test_raise_when_the_store_is_away(self, empty_market: Store) -> None:
        with store_lost(), pytest.raises(redis.RedisError):
            leaders_problems()
