"""Profiles of processor time by process during a load, which show what limits a figure."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.harness import table
from benchmarks.load import Load

if TYPE_CHECKING:
    from tickers.store.store import Store


def processor_time(
    loads: Mapping[str, Callable[[], Load]], *, gunicorn: int, store: "Store"
) -> str:
    """Return a table of the microseconds of processor time a request takes in node, store and wrk.

    ``gunicorn`` is the process id of its master. Together they can have one second a second of each
    core, so the sum bounds the rate.
    """
    info: Any = store.client.info("server")
    server = psutil.Process(int(info["process_id"]))
    rows = []
    for name, run in loads.items():
        before = _spent(gunicorn, server)
        done = run()
        parts = [now - then for now, then in zip(_spent(gunicorn, server), before, strict=True)]
        each = [1e6 * part / done.requests for part in parts]
        bound = (os.cpu_count() or 1) * 1e6 / sum(each)
        rows.append(
            [name, *(f"{part:,.0f}" for part in each), f"{bound:,.0f}", f"{done.rate:,.0f}"]
        )
    head = ["processor time a request (µs)", "gunicorn", "store", "wrk"]
    return table([*head, f"{os.cpu_count()} cores allow (a second)", "measured (a second)"], rows)


def _spent(gunicorn: int, server: psutil.Process) -> tuple[float, float, float]:
    workers = psutil.Process(gunicorn).children(recursive=True)
    ended = os.times()  # of children that have ended: wrk's among them
    return (
        sum(_seconds(worker) for worker in workers),
        _seconds(server),
        ended.children_user + ended.children_system,
    )


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
