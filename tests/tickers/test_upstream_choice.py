"""Which of several upstreams is asked, and what is told of the others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tickers.cycle_report import CycleReport
from tickers.store.store import FencedError
from tickers.upstream_choice import FIRST_PAUSE, LONGEST_PAUSE, UpstreamChoice

Progress = Callable[[int, int], None]


@dataclass
class Upstream:
    """Brings bars, unless it has an ``error``."""

    source: str
    error: str = ""
    second_hand: bool = False
    asked: int = 0
    raises: Exception | None = None
    requests: int = field(default=0)

    def cycle(self, fence: str, progress: Progress | None = None) -> CycleReport:
        self.asked += 1
        self.requests += 2
        if self.raises:
            raise self.raises
        report = CycleReport(
            requests=2,
            bars_received=0 if self.error else 9,
            errors=[self.error] if self.error else [],
            second_hand=self.second_hand,
        )
        return report.finish()

    def counts(self) -> dict[str, Any]:
        return {"requests": self.requests, "errors": {"status 503": 1} if self.error else {}}

    def contact(self, fence: str) -> CycleReport:
        return self.cycle(fence)


class Bench:
    def __init__(self, *upstreams: Upstream) -> None:
        self.now = 1_000.0
        self.upstreams = upstreams
        self.choice = UpstreamChoice(upstreams, clock=lambda: self.now)

    def cycle(self) -> tuple[str | None, str]:
        """Which upstream is in use after a cycle, and which were asked in it."""
        before = [each.asked for each in self.upstreams]
        report = self.choice.cycle("fence")
        asked = [
            each.source
            for each, times in zip(self.upstreams, before, strict=True)
            if each.asked > times
        ]
        return report.upstream["in_use"], " ".join(asked)


@pytest.fixture
def bench() -> Bench:
    return Bench(Upstream("a"), Upstream("b"), Upstream("c"))


def test_the_first_is_used_as_long_as_it_answers(bench: Bench) -> None:
    assert [bench.cycle() for _ in range(3)] == [("a", "a")] * 3


def test_one_that_fails_gives_way_to_the_next_in_the_same_cycle(bench: Bench) -> None:
    first = bench.upstreams[0]
    first.error = "the upstream answered 403"
    assert bench.cycle() == ("b", "a b")
    assert bench.cycle() == ("b", "b")
    first.error = ""
    bench.now += LONGEST_PAUSE
    assert bench.cycle() == ("b", "b")  # the two may adjust histories differently


def test_one_that_fails_is_left_alone_longer_each_time() -> None:
    dead, door = Upstream("a", error="down"), Upstream("b", second_hand=True)
    bench = Bench(dead, door)
    pauses, left_at = [], bench.now
    for _ in range(2_000):
        if bench.cycle()[1] == "a b":
            pauses.append(bench.now - left_at)
            left_at = bench.now
        bench.now += 5
    assert pauses[:5] == [0, 30, 60, 120, 240]
    assert max(pauses) == LONGEST_PAUSE


def test_a_door_gives_way_to_an_upstream_that_answers_again() -> None:
    bench = Bench(Upstream("a", error="down"), Upstream("b", second_hand=True))
    assert bench.cycle() == ("b", "a b")
    bench.upstreams[0].error = ""
    assert bench.cycle() == ("b", "b")
    bench.now += FIRST_PAUSE
    assert bench.cycle() == ("a", "a")


def test_without_any_that_answers_the_one_whose_pause_ends_first_is_asked(bench: Bench) -> None:
    for each in bench.upstreams:
        each.error = "down"
    assert bench.cycle() == (None, "a b c")
    bench.now += 1
    assert bench.cycle() == (None, "a")
    assert bench.cycle() == (None, "b")
    bench.upstreams[2].error = ""
    assert bench.cycle() == ("c", "c")


def test_a_single_upstream_is_asked_every_time() -> None:
    bench = Bench(Upstream("a", error="down"))
    assert [bench.cycle() for _ in range(3)] == [(None, "a")] * 3


def test_it_is_told_which_is_in_use_and_why_the_others_arent(bench: Bench) -> None:
    bench.upstreams[0].error = "the upstream answered 403"
    report = bench.choice.cycle("fence")
    assert report.errors == []
    assert report.requests == 4
    assert report.upstream["requests"] == 4
    assert report.upstream["errors"] == {"status 503": 1}
    told = [
        (each["source"], each["in_use"], each["left_for_secs"], each["why"])
        for each in report.upstream["sources"]
    ]
    assert told == [
        ("a", False, 30, "the upstream answered 403"),
        ("b", True, 0, ""),
        ("c", False, 0, "it isn't needed"),
    ]


def test_what_is_counted_of_one_that_isnt_asked_any_more_is_as_it_is_now(bench: Bench) -> None:
    """Its last hour goes on passing."""
    first = bench.upstreams[0]
    first.error = "the upstream answered 403"
    assert bench.choice.cycle("fence").upstream["errors"] == {"status 503": 1}
    first.error, first.requests = "", 0
    report = bench.choice.cycle("fence")
    assert (report.upstream["requests"], report.upstream["errors"]) == (4, {})


def test_a_contact_chooses_too(bench: Bench) -> None:
    bench.upstreams[0].error = "down"
    assert bench.choice.contact("fence").upstream["in_use"] == "b"


def test_what_the_store_raises_is_no_upstreams_fault(bench: Bench) -> None:
    bench.upstreams[0].raises = FencedError("late")
    with pytest.raises(FencedError):
        bench.choice.cycle("fence")
    bench.upstreams[0].raises = None
    assert bench.cycle() == ("a", "a")
