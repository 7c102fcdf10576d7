"""The harness of the benchmarks: a node's settings, a filled store, rounds, the README's tables.

Every figure is a ratio to a floor measured in the same run, in interleaved rounds, because machines
are noisy. Nothing leaves 127.0.0.1, and nothing of the machine's own settings reaches a node.
"""

import argparse
import contextlib
import datetime as dt
import json
import math
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickers.bar import Bar
    from tickers.store.store import Store

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "benchmarks" / "README.md"
DAY = dt.date(2025, 8, 15)
NOW = dt.datetime(2025, 8, 15, 10, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
TOKEN = "benchmark-primary-token"  # noqa: S105 - of nodes that live for a minute on loopback
_BEGAN = time.monotonic_ns()


@dataclass(frozen=True)
class Run:
    """The length of a run: rounds, and seconds a round; ``quick`` proves only that it works."""

    quick: bool
    rounds: int
    seconds: int
    everything: bool = False


def read_options(description: str | None) -> Run:
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement in a round")
    parser.add_argument("--all", action="store_true", help="growth: the largest markets too")
    given = parser.parse_args()
    if given.quick:
        return Run(quick=True, rounds=2, seconds=1, everything=given.all)
    return Run(quick=False, rounds=given.rounds, seconds=given.seconds, everything=given.all)


# --- A node's settings and its store ------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A temporary folder, and the environment and port of the node under test."""

    folder: Path
    env: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, port: int) -> "Bench":
        """The same node on another port."""
        return Bench(self.folder, {**self.env, "PORT": str(port)}, port)


def environment(data_dir: Path, port: int, **settings: str) -> dict[str, str]:
    """Return a node's settings, with nothing of the machine's own."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "PYTHONPATH")
        if name in os.environ
    }
    return {
        **kept,
        "ENV_FILE": os.devnull,
        "PRIMARY_TOKEN": TOKEN,
        "SECONDARY_TOKEN": "benchmark-secondary-token",
        "DATA_DIR": str(data_dir),
        "PORT": str(port),
        "DEBUG_SYSTEM_TIME": NOW.isoformat(),
        "HISTORY_START": "2000-01-01",
        "TRUST_WINDOW": "86400",
        "LOG_LEVEL": "WARNING",
        **settings,
    }


@contextlib.contextmanager
def bench(port: int, **settings: str) -> Iterator[Bench]:
    """Set up a node's settings, in this process and for its children, with a store of its own."""
    folder = Path(tempfile.mkdtemp(prefix="aipriceaction-bench-"))
    env = environment(folder / "data", port, **settings)
    os.environ.update(env)
    os.environ["DJANGO_SETTINGS_MODULE"] = "proxy_site.settings"
    import django

    django.setup()
    from django.core.management import call_command

    from proxy_site.local import embedded_redis

    try:
        embedded_redis.ensure(folder / "data")
        call_command("migrate", verbosity=0)
        yield Bench(folder, env, port)
    finally:
        embedded_redis.release(folder / "data")
        embedded_redis.stop(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def fill(symbols: int, bars: int, *, todays_by_peer: bool = False) -> "Store":
    """Make the store this market, as CORE and complete.

    ``todays_by_peer``: bars of ``DAY`` came as INTERNAL, so that more of a peer's dispute nothing.
    """
    from tickers import wiring
    from tickers.bar import epoch_of
    from tickers.verdict import Authority

    store = wiring.store()
    store.client.flushdb()
    fence = store.acquire_lease(3_600)
    if fence is None:
        raise SystemExit("the benchmark's own store has a leader already")
    days = trading_days(bars)
    of_peer: list[Bar] = []
    for symbol in symbol_names(symbols):
        whole = series(symbol, days)
        if todays_by_peer:
            of_peer.append(whole.pop())
        store.replace_series(
            symbol,
            whole,
            Authority.CORE,
            fence=fence,
            history_start=epoch_of(days[0]),
        )
    store.merge(of_peer, Authority.INTERNAL)
    store.complete_cycle(fence=fence)
    return store


def symbol_names(count: int) -> list[str]:
    """Return the universe's first symbols, then made-up ones."""
    from tickers.universe import Universe

    known = Universe.read().symbols
    return [*known[:count], *(f"X{number:05d}" for number in range(count - len(known)))]


def trading_days(count: int) -> list[dt.date]:
    """Return the last weekdays up to ``DAY``, oldest first."""
    days: list[dt.date] = []
    day = DAY
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day -= dt.timedelta(days=1)
    return days[::-1]


def series(symbol: str, days: Sequence[dt.date]) -> list["Bar"]:
    """Make a random walk, the same in each run, as long and as incompressible as real bars."""
    from tickers.bar import Bar

    draw = random.Random(symbol)
    bars, close = [], 100.0 * draw.randint(100, 900)
    for day in days:
        first, close = close, min(max(close + 50 * draw.randint(-20, 20), 5_000.0), 150_000.0)
        high = max(first, close) + 50 * draw.randint(0, 10)
        low = min(first, close) - 50 * draw.randint(0, 10)
        bars.append(Bar(symbol, day, first, high, low, close, draw.randint(10_000, 20_000_000)))
    return bars


def changed_bars(symbols: Sequence[str]) -> list["Bar"]:
    """Make a bar of ``DAY`` for each symbol, with a larger volume than all before."""
    from dataclasses import replace

    volume = next_volume()
    return [replace(series(symbol, [DAY])[0], volume=volume) for symbol in symbols]


def next_volume() -> int:
    """Grows by 1,000 a second: a merge that takes over a millisecond always brings a larger one.

    Above all of ``series``, and for ten days no more than 50 times what those have: more than that
    no peer may say.
    """
    return 100_000_000 + (time.monotonic_ns() - _BEGAN) // 1_000_000


# --- Rounds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """The median over the rounds, and their spread: the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        low, high = (f"{value:,.{digits}f}" for value in (self.low, self.high))
        return f"{self.median:,.{digits}f} ({low}–{high})"  # noqa: RUF001 - a range


def interleave(measurements: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Take each measurement once a round, in turn, so that a noisy moment hits all alike."""
    values: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            values[name].append(measure())
    return values


def ratios(values: Sequence[float], floors: Sequence[float]) -> Figure:
    """Return the medians' ratio, and the spread of the rounds' ratios.

    It isn't the median of the ratios, since noise in one measurement needn't be in the one beside
    it.
    """
    each = [value / floor for value, floor in zip(values, floors, strict=True)]
    return Figure(statistics.median(values) / statistics.median(floors), min(each), max(each))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` % of all don't exceed."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


# --- Results ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(run: Run, name: str, text: str, figures: object) -> None:
    """Print the table; unless the run is quick, save the figures and put it into the README."""
    print(text, flush=True)
    if run.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    kept = {"rounds": run.rounds, "seconds": run.seconds, "figures": figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    begin, end = f"<!-- {name}: made by the benchmark -->", f"<!-- end of {name} -->"
    before, found, rest = README.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"benchmarks/README.md doesn't have the lines {begin} and {end}")
    README.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"
