"""The settings of gunicorn.conf.py beside alternatives, one at a time: reads, a post's p99, memory.

All nodes run at once over one store and are measured in turn: one symbol's last bar and the whole
market gzipped at 16 connections, and a trusted post every 10 ms beside four readers of the whole
market. Data: 287 symbols x 100 bars.
"""

import contextlib
import importlib.util
from functools import partial

import psutil

from benchmarks import harness, isolation, load, servers
from benchmarks.harness import Bench, Figure

ALTERNATIVES = {
    "gunicorn.conf.py": (),
    "1 thread": ("--threads", "1"),
    "2 threads": ("--threads", "2"),
    "16 threads": ("--threads", "16"),
    "a worker more": ("--workers", str((psutil.cpu_count() or 1) + 1)),
    "sync workers": ("--worker-class", "sync"),
    "gevent": ("--worker-class", "gevent"),
    "preload": ("--preload",),
}
QUICK = ("gunicorn.conf.py", "preload")


def main() -> None:
    run = harness.read_options(__doc__)
    with harness.bench(servers.free_port()) as bench, contextlib.ExitStack() as stack:
        harness.fill(287, 100)
        nodes: dict[str, Bench] = {}
        masters: dict[str, int] = {}
        for name, options in ALTERNATIVES.items():
            if run.quick and name not in QUICK:
                continue
            if name == "gevent" and not importlib.util.find_spec("gevent"):
                print("gevent isn't installed, and isn't measured")
                continue
            nodes[name] = bench.on(servers.free_port())
            masters[name] = stack.enter_context(servers.node(nodes[name], *options)).pid
        found = {
            what: harness.interleave(
                {name: partial(measurement, node, run) for name, node in nodes.items()}, run.rounds
            )
            for what, measurement in MEASUREMENTS.items()
        }
        report(run, found, {name: memory(master) for name, master in masters.items()})


def symbol_rate(node: Bench, run: harness.Run) -> float:
    return load.wrk(f"{node.url}/tickers?symbol=VCB&limit=1", seconds=run.seconds).rate


def market_rate(node: Bench, run: harness.Run) -> float:
    headers = {"Accept-Encoding": "gzip"}
    return load.wrk(f"{node.url}/tickers", seconds=run.seconds, headers=headers).rate


def post_beside_readers(node: Bench, run: harness.Run) -> float:
    """Return a post's p99 in milliseconds."""
    names = harness.symbol_names(287)
    with isolation.reading(f"{node.url}/tickers", 2 * run.seconds + 1):
        return harness.percentile(isolation.posts(node.port, names, seconds=2 * run.seconds), 99)


MEASUREMENTS = {
    "one symbol, a second": symbol_rate,
    "whole market gzipped, a second": market_rate,
    "a post beside four readers, p99 (ms)": post_beside_readers,
}


def memory(gunicorn: int) -> float:
    """Return the MB of the master and its workers; shared memory counts once (PSS)."""
    master = psutil.Process(gunicorn)
    processes = [master, *master.children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in processes)) / 2**20


def report(
    run: harness.Run, found: dict[str, dict[str, list[float]]], used: dict[str, float]
) -> None:
    rows = [
        [
            name,
            *(Figure.of(found[what][name]).text(0) for what in MEASUREMENTS),
            f"{megabytes:,.0f}",
        ]
        for name, megabytes in used.items()
    ]
    head = ["", *MEASUREMENTS, "memory (MB)"]
    harness.publish(run, "serving", harness.table(head, rows), {**found, "memory_mb": used})


if __name__ == "__main__":
    main()
