"""What is counted is forgotten after an hour, and takes no more memory the longer it goes on."""

from tickers.vci.last_hour import MOST_NAMES, OTHER, LastHour

HOUR = 3_600


class Bench:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.counted = LastHour(clock=lambda: self.now)


def test_names_are_counted_each_by_itself() -> None:
    bench = Bench()
    bench.counted.add("timeout")
    bench.counted.update({"timeout": 2, "html": 1})
    assert bench.counted.counts() == {"timeout": 3, "html": 1}


def test_what_is_an_hour_old_is_forgotten_to_the_minute() -> None:
    bench = Bench()
    bench.counted.add("timeout")
    bench.now += HOUR / 2
    bench.counted.add("html")
    bench.now += HOUR / 2 - 60
    assert bench.counted.counts() == {"timeout": 1, "html": 1}
    bench.now += 120
    assert bench.counted.counts() == {"html": 1}
    bench.now += HOUR
    assert bench.counted.counts() == {}


def test_a_week_of_errors_takes_an_hours_memory() -> None:
    bench = Bench()
    for _ in range(7 * 24 * 60):
        bench.counted.add("timeout")
        bench.now += 60
    assert bench.counted.counts()["timeout"] in (59, 60)
    assert len(bench.counted._minutes) <= 61


def test_names_without_end_are_counted_as_others() -> None:
    bench = Bench()
    for number in range(10_000):
        bench.counted.add(f"status {number}")
    counts = bench.counted.counts()
    assert counts.total() == 10_000
    assert len(counts) == MOST_NAMES + 1
    assert counts[OTHER] == 10_000 - MOST_NAMES
