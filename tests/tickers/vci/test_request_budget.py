"""At most so many requests in any window, however many workers ask, with Redis and without."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from tickers.vci.request_budget import RequestBudget

KEY = "{market}:upstream_requests"


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[redis.Redis]:
    """A client of a server that isn't there."""
    path = str(tmp_path / "none.sock")
    with redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as client:
        yield client


def most_in_a_window(grants: Sequence[float], window: float) -> int:
    return max(
        (sum(start <= grant < start + window for grant in grants) for start in grants), default=0
    )


def granted_until(budget: RequestBudget, clock: Clock, seconds: float) -> list[float]:
    """Ask whenever the budget says, for so many seconds of the clock."""
    grants, end = [], clock.now + seconds
    while clock.now < end:
        wait = budget.try_take()
        if wait == 0:
            grants.append(clock.now)
        clock.now += wait
    return grants


def preload(server: redis.Redis, *ages: float) -> None:
    """Grants that other workers had so many seconds ago."""
    seconds, micros = server.time()
    now = seconds * 1_000_000 + micros
    server.rpush(KEY, *(now - round(age * 1e6) for age in ages))


class TestInMemory:
    def test_a_process_alone_asks_evenly_and_never_too_often(self, nowhere: redis.Redis) -> None:
        clock = Clock()
        budget = RequestBudget(nowhere, limit=30, clock=clock)
        grants = granted_until(budget, clock, 300)
        assert most_in_a_window(grants, 61) == 30
        assert {round(b - a, 3) for a, b in itertools.pairwise(grants)} == {2.033}

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
    @given(
        limit=st.integers(1, 12),
        pauses=st.lists(st.floats(0, 40, allow_subnormal=False), max_size=60),
    )
    def test_no_window_holds_more_than_the_limit_however_it_is_asked(
        self, nowhere: redis.Redis, limit: int, pauses: list[float]
    ) -> None:
        clock = Clock()
        budget = RequestBudget(nowhere, limit=limit, clock=clock)
        grants = []
        for pause in pauses:
            clock.now += pause
            wait = budget.try_take()
            if wait == 0:
                grants.append(clock.now)
            else:
                clock.now += wait * 0.999
        assert most_in_a_window(grants, 61) <= limit

    def test_a_new_process_without_redis_waits_before_its_first_request(
        self, nowhere: redis.Redis
    ) -> None:
        # The one before it may have asked a moment ago.
        clock = Clock()
        budget = RequestBudget(nowhere, limit=30, clock=clock)
        assert budget.try_take() == pytest.approx(budget.pace)
        clock.now += budget.pace
        assert budget.try_take() == 0

    def test_the_limit_holds_on_when_redis_fails(self, clean_server: redis.Redis) -> None:
        clock = Clock()
        budget = RequestBudget(clean_server, limit=6, clock=clock)
        assert budget.try_take() == 0
        clean_server.set(KEY, "makes the script fail")
        grants = [clock.now, *granted_until(budget, clock, 200)]
        assert most_in_a_window(grants, 61) == 6

    def test_the_limit_holds_on_when_redis_has_forgotten(self, clean_server: redis.Redis) -> None:
        clock = Clock()
        budget = RequestBudget(clean_server, limit=6, clock=clock)
        assert budget.try_take() == 0
        clean_server.flushall()
        assert budget.try_take() == pytest.approx(budget.pace)


class TestSharedThroughRedis:
    def test_workers_share_the_pace(self, clean_server: redis.Redis) -> None:
        one, other = (RequestBudget(clean_server, limit=30) for _ in range(2))
        assert one.try_take() == 0
        assert 1.5 < other.try_take() <= 2.034

    def test_a_full_window_makes_a_new_worker_wait(self, clean_server: redis.Redis) -> None:
        preload(clean_server, *range(30, 0, -1))
        assert RequestBudget(clean_server, limit=30).try_take() == pytest.approx(31, abs=0.5)

    def test_grants_older_than_the_window_are_forgotten(self, clean_server: redis.Redis) -> None:
        preload(clean_server, *range(91, 61, -1))
        assert RequestBudget(clean_server, limit=30).try_take() == 0
        assert clean_server.llen(KEY) == 1
        assert 0 < clean_server.pttl(KEY) <= 61_000

    def test_a_lower_limit_counts_what_was_granted_under_a_higher_one(
        self, clean_server: redis.Redis
    ) -> None:
        preload(clean_server, *range(20, 0, -1))
        assert RequestBudget(clean_server, limit=10).try_take() == pytest.approx(51, abs=0.5)

    def test_a_server_whose_clock_was_set_back_grants_again_within_a_window(
        self, clean_server: redis.Redis
    ) -> None:
        preload(clean_server, *[-3_600.0] * 30)
        budget = RequestBudget(clean_server, limit=30)
        assert budget.try_take() == pytest.approx(61, abs=0.5)
        assert budget.try_take() == pytest.approx(61, abs=0.5)

    def test_prefixes_are_counted_apart(self, clean_server: redis.Redis) -> None:
        assert RequestBudget(clean_server, limit=1, key_prefix="a:").try_take() == 0
        assert RequestBudget(clean_server, limit=1, key_prefix="b:").try_take() == 0

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8, deadline=None
    )
    @given(turns=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=8, max_size=16))
    def test_no_window_holds_more_than_the_limit_under_any_interleaving(
        self, clean_server: redis.Redis, turns: list[tuple[int, bool]]
    ) -> None:
        clean_server.flushall()
        limit, window = 4, 0.08

        def worker() -> RequestBudget:
            return RequestBudget(clean_server, limit=limit, window=window)

        workers = [worker() for _ in range(3)]
        spans = []
        for turn, restarts in turns:
            if restarts:  # a new process remembers nothing
                workers[turn] = worker()
            spans.append(await_grant(workers[turn]))
        assert_never_more_than(limit, window, spans)

    def test_no_window_holds_more_than_the_limit_with_workers_at_once(
        self, clean_server: redis.Redis
    ) -> None:
        limit, window = 10, 0.3
        spans: list[tuple[float, float]] = []

        def work() -> None:
            budget = RequestBudget(clean_server, limit=limit, window=window)
            spans.extend(await_grant(budget) for _ in range(8))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(spans) == 32
        assert_never_more_than(limit, window, spans)


def await_grant(budget: RequestBudget) -> tuple[float, float]:
    """The moments just before and just after a grant."""
    pause = threading.Event()
    while True:
        before = time.monotonic()
        wait = budget.try_take()
        if wait == 0:
            return before, time.monotonic()
        pause.wait(wait)


def assert_never_more_than(limit: int, window: float, spans: list[tuple[float, float]]) -> None:
    earliest = sorted(before for before, _ in spans)
    latest = sorted(after for _, after in spans)
    assert all(b - a >= window for a, b in zip(earliest, latest[limit:], strict=False))


class TestWaiting:
    def test_take_waits_for_its_turn(self, clean_server: redis.Redis) -> None:
        budget = RequestBudget(clean_server, limit=10, window=1.0)
        stop = threading.Event()
        assert budget.take(stop=stop)
        before = time.monotonic()
        assert budget.take(stop=stop)
        assert time.monotonic() - before >= 0.09

    def test_a_wait_ends_at_once_when_the_node_stops(self, clean_server: redis.Redis) -> None:
        budget = RequestBudget(clean_server, limit=1)
        stop = threading.Event()
        assert budget.take(stop=stop)
        threading.Timer(0.05, stop.set).start()
        before = time.monotonic()
        assert not budget.take(stop=stop)
        assert time.monotonic() - before < 5

    def test_a_stopping_node_is_granted_nothing(self, clean_server: redis.Redis) -> None:
        stop = threading.Event()
        stop.set()
        assert not RequestBudget(clean_server, limit=1).take(stop=stop)
        assert clean_server.llen(KEY) == 0

    @pytest.mark.parametrize(("limit", "window"), [(0, 61.0), (1, 0.0)])
    def test_a_budget_of_nothing_is_refused(
        self, nowhere: redis.Redis, limit: int, window: float
    ) -> None:
        with pytest.raises(ValueError, match="above 0"):
            RequestBudget(nowhere, limit=limit, window=window)


def test_each_upstream_has_a_budget_of_its_own(clean_server: redis.Redis) -> None:
    first = RequestBudget(clean_server, limit=1)
    other = RequestBudget(clean_server, limit=1, source="b.test")
    assert first.try_take() == other.try_take() == 0
    assert RequestBudget(clean_server, limit=1).try_take() > 60
    assert RequestBudget(clean_server, limit=1, source="b.test").try_take() > 60
    assert RequestBudget(clean_server, limit=1, source="c.test").try_take() == 0
