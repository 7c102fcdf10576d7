"""The isolation of writers and readers: each beside the other, over its own quiet value.

A peer posts a changed bar to the token door every 10 ms, over one kept-alive connection, first
alone and then while four connections read the whole market without pause. Then 16 connections
read, without and with a revision every 100 ms. Data: 287 symbols x 100 bars.
"""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import harness, load, profiles, reads, servers
from benchmarks.harness import TOKEN, Bench, Figure, Run, verdict
from benchmarks.load import Load

if TYPE_CHECKING:
    from tickers.store.store import Store

T = TypeVar("T")

POST_EVERY = 0.010  # seconds
REVISION_EVERY = 0.100  # seconds
AT_MOST = 5.0  # times the quiet p99 of a post
AT_LEAST = 0.8  # of the quiet read rate
SLOWEST = 250.0  # ms
READ = tuple(work for work in reads.WORK if not work.conditional)


def main() -> None:
    run = harness.read_options(__doc__)
    with harness.bench(servers.free_port()) as bench:
        store = harness.fill(287, 100, todays_by_peer=True)
        names = harness.symbol_names(287)
        with servers.node(bench) as process:
            posts, post_figures = writers_beside_readers(bench, names, run)
            readers, read_figures = readers_beside_writers(bench, store, names, run)
            market = f"{bench.url}/tickers"
            busy = profiles.processor_time(
                {"whole market, 4 connections": lambda: readers_load(market, run.seconds)},
                gunicorn=process.pid,
                store=store,
            )
    text = f"{posts}\n\n{readers}\n\n{busy}"
    harness.publish(run, "isolation", text, {"posts": post_figures, "reads": read_figures})


def readers_load(url: str, seconds: int) -> Load:
    return load.wrk(url, seconds=seconds, connections=4)


# --- Writers beside readers ---------------------------------------------------------------------


def writers_beside_readers(bench: Bench, names: list[str], run: Run) -> tuple[str, dict[str, Any]]:
    """Measure the p99 of each round's posts over its quiet value."""
    seconds = 2 * run.seconds
    quiet: list[list[float]] = []
    beside: list[list[float]] = []
    rates: list[float] = []
    posts(bench.port, names, seconds=1)
    for _ in range(run.rounds):
        quiet.append(posts(bench.port, names, seconds=seconds))
        with reading(f"{bench.url}/tickers", seconds + 1) as reader:
            beside.append(posts(bench.port, names, seconds=seconds))
        rates.append(reader[0].rate)
    quiet_p99 = [harness.percentile(times, 99) for times in quiet]
    beside_p99 = [harness.percentile(times, 99) for times in beside]
    ratio = harness.ratios(beside_p99, quiet_p99)
    head = ["a trusted post", "quiet p99 (ms)", "beside four readers p99 (ms)", "ratio"]
    row = [f"one changed bar every {POST_EVERY * 1000:g} ms", Figure.of(quiet_p99).text(1)]
    row += [Figure.of(beside_p99).text(1), ratio.text(1)]
    row += [f"≤ {AT_MOST:g}", verdict(ratio.median <= AT_MOST), f"{Figure.of(rates).median:,.0f}"]
    text = harness.table([*head, "to reach", "reached", "markets read a second"], [row])
    return text, {"quiet_p99_ms": quiet_p99, "beside_p99_ms": beside_p99, "read_rates": rates}


def reading(url: str, seconds: int) -> "contextlib.AbstractContextManager[list[Load]]":
    """Read over four connections without pause for that long."""
    return under_way(lambda: readers_load(url, seconds))


@contextlib.contextmanager
def under_way(load: Callable[[], T]) -> Iterator[list[T]]:
    """Run ``load`` beside the block and until it ends by itself; the list then has its result."""
    result: list[T] = []
    sender = threading.Thread(target=lambda: result.append(load()))
    sender.start()
    time.sleep(0.5)  # for it to be under way, in a part that isn't measured
    yield result
    sender.join()
    if not result:
        raise SystemExit("the load failed: see above")


def posts(port: int, names: list[str], *, seconds: float, source: str = "127.0.0.1") -> list[float]:
    """Return how long each post took, in ms; a post that is late doesn't delay the next."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=30, source_address=(source, 0)
    )
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    times: list[float] = []
    with contextlib.closing(connection):
        began = time.perf_counter()
        due = began
        while due < began + seconds:
            (bar,) = harness.changed_bars([names[len(times) % len(names)]])
            time.sleep(max(0.0, due - time.perf_counter()))
            sent_at = time.perf_counter()
            connection.request("POST", "/gossip", bar.encode(), headers)
            answer = connection.getresponse()
            answer.read()
            times.append((time.perf_counter() - sent_at) * 1000)
            if answer.status != 200:
                raise SystemExit(f"a trusted post is answered {answer.status}")
            due += POST_EVERY
    return times


# --- Readers beside writers ---------------------------------------------------------------------


def readers_beside_writers(
    bench: Bench, store: "Store", names: list[str], run: Run
) -> tuple[str, list[dict[str, Any]]]:
    rows, figures = [], []
    for changed in (1, 287):
        for work in READ if changed == 1 else READ[-2:]:
            url, headers = f"{bench.url}{work.path}", {"Accept-Encoding": work.accept}
            read = partial(load.wrk, url, seconds=run.seconds, headers=headers)
            read()
            quiet, beside = pairs(read, store, names[:changed], run.rounds)
            found = harness.ratios([b.rate for b in beside], [q.rate for q in quiet])
            slowest = max(answer.slowest for answer in beside)
            row = [work.name, f"{changed}", found.text(), f"{AT_LEAST:g}"]
            row += [verdict(found.median >= AT_LEAST), f"{max(q.slowest for q in quiet):,.0f}"]
            row += [f"{slowest:,.0f}", f"{SLOWEST:g}", verdict(slowest <= SLOWEST)]
            rows.append(row)
            figures.append(
                {
                    "work": work.name,
                    "bars_a_revision": changed,
                    "quiet": [q.rate for q in quiet],
                    "beside": [b.rate for b in beside],
                    "slowest_ms": slowest,
                }
            )
            print(" ".join(rows[-1]), flush=True)
    head = ["reads", "bars a revision", "of the quiet rate", "to reach", "reached"]
    head += ["slowest answer, quiet (ms)", "beside writes (ms)", "to reach", "reached"]
    return harness.table(head, rows), figures


def pairs(
    read: Callable[[], Load], store: "Store", names: list[str], rounds: int
) -> tuple[list[Load], list[Load]]:
    quiet, beside = [], []
    for _ in range(rounds):
        quiet.append(read())
        with revisions(store, names):
            beside.append(read())
    return quiet, beside


@contextlib.contextmanager
def revisions(store: "Store", names: list[str]) -> Iterator[None]:
    """Merge changed bars of these symbols every 100 ms."""
    from tickers.verdict import Authority

    ended = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            while not ended.wait(REVISION_EVERY):
                store.merge(harness.changed_bars(names), Authority.INTERNAL)
        except Exception as error:  # noqa: BLE001 - the measuring thread raises it
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main()
