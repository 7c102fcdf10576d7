"""The token door's rate: how many bars a second it takes, all of them changes.

Lists of 287 bars are a ratio to the same merge called directly on the server: Store.merge by one
client in this process. Single bars are a ratio to the floor of one symbol's last bar. wrk sends
over kept-alive connections, 8 with lists and 16 with single bars; its Lua script gives each bar a
volume larger than the one before. Of two lists under way, the later may be merged first, and the
earlier then changes nothing: so lists of ten sets of 287 symbols take turns, and only bars that
changed the market are counted. Data: 2,870 symbols x 100 bars.
"""

import contextlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness, load, profiles, reads, servers
from benchmarks.harness import Figure, Run, verdict

if TYPE_CHECKING:
    from tickers.store.store import Store

LIST = 287
SYMBOLS = 10 * LIST
OF_MERGE, OF_FLOOR = 0.6, 0.25  # to reach


def main() -> None:
    run = harness.read_options(__doc__)
    with harness.bench(servers.free_port()) as bench, contextlib.ExitStack() as stack:
        store = harness.fill(SYMBOLS, 100, todays_by_peer=True)
        names = harness.symbol_names(SYMBOLS)
        process = stack.enter_context(servers.node(bench))
        one = reads.fetch(bench.port, f"/tickers?symbol={names[0]}&limit=1", {})
        floor = stack.enter_context(servers.floor(bench, {"bar": one.body}))
        heads = load.heads_file(bench.folder, names)
        values = harness.interleave(
            {
                "merge": lambda: merge_rate(store, names, run.seconds),
                "script": lambda: merge_rate(store, names, run.seconds, script_only=True),
                "lists": lambda: door_rate(store, bench.url, heads, LIST, run),
                "floor": lambda: load.wrk(f"{floor}/bar", seconds=run.seconds).rate,
                "single": lambda: door_rate(store, bench.url, heads, 1, run),
            },
            run.rounds,
        )
        busy = profiles.processor_time(
            {
                f"lists of {LIST}": lambda: load.gossip(
                    bench.url, heads, bars=LIST, seconds=run.seconds
                ),
                "single bars": lambda: load.gossip(bench.url, heads, bars=1, seconds=run.seconds),
            },
            gunicorn=process.pid,
            store=store,
        )
    text, figures = report(values)
    harness.publish(run, "gossip", f"{text}\n\n{busy}", figures)


def report(values: dict[str, list[float]]) -> tuple[str, dict[str, Any]]:
    rows: list[list[str]] = []
    figures: dict[str, Any] = {"rates": values}
    for name, work, over, target in (
        ("lists", f"lists of {LIST} bars, of the merge called straight", "merge", OF_MERGE),
        ("single", "single bars, of the one-symbol floor", "floor", OF_FLOOR),
    ):
        found = harness.ratios(values[name], values[over])
        rate, base = Figure.of(values[name]), Figure.of(values[over])
        row = [work, found.text(), f"{target:g}", verdict(found.median >= target)]
        rows.append([*row, f"{rate.median:,.0f}", f"{base.median:,.0f}"])
        figures[name] = {**asdict(found), "target": target}
    script, merge = Figure.of(values["script"]), Figure.of(values["merge"])
    row = ["the merge script alone, by the server's count", "", "", ""]
    rows.append([*row, f"{script.median:,.0f}", f"{merge.median:,.0f}"])
    head = ["work", "ratio", "to reach", "reached", "bars a second", "of (a second)"]
    return harness.table(head, rows), figures


def door_rate(store: "Store", url: str, heads: Path, bars: int, run: Run) -> float:
    """Measure the bars a second that came by the door and changed the market."""
    before = store.state().position.revision
    sent = load.gossip(url, heads, bars=bars, seconds=run.seconds)
    changed = store.state().position.revision - before
    if changed < 0.9 * sent.requests:
        raise SystemExit(f"only {changed} of {sent.requests} requests changed the market")
    return sent.rate * bars * min(1.0, changed / sent.requests)


def merge_rate(
    store: "Store", names: list[str], seconds: float, *, script_only: bool = False
) -> float:
    """Measure the bars a second of Store.merge, without the making of the bars.

    ``script_only``: the time of the Lua calls alone, without the client's encoding and the network.
    """
    from tickers.verdict import Authority

    merged, spent, at = 0, 0.0, 0
    script_began = script_seconds(store)
    while spent < seconds:
        bars = harness.changed_bars(names[at : at + LIST])
        at = (at + LIST) % len(names)
        began = time.perf_counter()
        result = store.merge(bars, Authority.INTERNAL)
        spent += time.perf_counter() - began
        if result.changed != len(bars):
            raise SystemExit(f"{result.changed} of {len(bars)} bars changed: all must")
        merged += len(bars)
    return merged / (script_seconds(store) - script_began if script_only else spent)


def script_seconds(store: "Store") -> float:
    """Return the seconds of merge's Lua calls since the server's start, by its own count."""
    counted: Any = store.client.info("commandstats")
    return float(counted["cmdstat_evalsha"]["usec"]) / 1e6


if __name__ == "__main__":
    main()
