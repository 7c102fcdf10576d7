"""A trusted post's latency beside a flood of a banned actor, over its own quiet value.

A peer posts a changed bar to the token door every 10 ms, over one kept-alive connection, first
alone and then while wrk sends a banned actor's bars to the public door over 16 connections, without
pause. Both go straight to the node, then both through deploy/nginx-site.conf with its limits, from
which the flood's address isn't exempt. Data: 287 symbols x 100 bars.
"""

import subprocess
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import front, harness, isolation, servers
from benchmarks.harness import ROOT, Figure, Run, verdict

CONNECTIONS = 16
PEER = "127.0.0.2"  # not the flood's address
AT_MOST = 2.0  # times the quiet p99 of a post


@dataclass(frozen=True)
class Flood:
    """The rates of a flood: answers a second that were 403 and 429."""

    banned: float
    limited: float


def main() -> None:
    run = harness.read_options(__doc__)
    with harness.bench(servers.free_port()) as bench:
        harness.fill(287, 100)
        ban("127.0.0.1")
        with servers.node(bench), front.nginx(bench, exempt=False) as front_port:
            ports = {"gunicorn alone": bench.port}
            if front_port:
                ports["behind nginx"] = front_port
            text, figures = beside_floods(ports, run)
    harness.publish(run, "flood", text, figures)


def ban(address: str) -> None:
    from reputation import actors
    from reputation.models import Actor
    from reputation.transitions import OperatorEvent

    actor = Actor.objects.create(address=address)
    actors.change_by_operator(actor=actor, event=OperatorEvent.BAN, operator="benchmark")


def beside_floods(ports: dict[str, int], run: Run) -> tuple[str, list[dict[str, Any]]]:
    """Measure the p99 of each round's posts over its quiet value."""
    seconds, names = 2 * run.seconds, harness.symbol_names(287)
    quiet: dict[str, list[float]] = {name: [] for name in ports}
    beside: dict[str, list[float]] = {name: [] for name in ports}
    floods: dict[str, list[Flood]] = {name: [] for name in ports}
    for port in ports.values():
        isolation.posts(port, names, seconds=1, source=PEER)
    for _ in range(run.rounds):
        for name, port in ports.items():
            times = isolation.posts(port, names, seconds=seconds, source=PEER)
            quiet[name].append(harness.percentile(times, 99))
            with isolation.under_way(partial(flood, port, seconds + 1)) as floods_seen:
                times = isolation.posts(port, names, seconds=seconds, source=PEER)
            beside[name].append(harness.percentile(times, 99))
            floods[name] += floods_seen
    rows, figures = [], []
    for name in ports:
        ratio = harness.ratios(beside[name], quiet[name])
        row = [f"{name}, one changed bar every {isolation.POST_EVERY * 1000:g} ms"]
        row += [Figure.of(quiet[name]).text(1), Figure.of(beside[name]).text(1), ratio.text(1)]
        row += [f"≤ {AT_MOST:g}", verdict(ratio.median <= AT_MOST)]
        row += [f"{Figure.of([f.banned for f in floods[name]]).median:,.0f}"]
        rows.append([*row, f"{Figure.of([f.limited for f in floods[name]]).median:,.0f}"])
        figures.append(
            {"way": name, "quiet_p99_ms": quiet[name], "beside_p99_ms": beside[name]}
            | {"flood": [[f.banned, f.limited] for f in floods[name]]}
        )
    head = ["a trusted post", "quiet p99 (ms)", "beside the flood p99 (ms)", "ratio"]
    head += ["to reach", "reached", "403 a second", "429 a second"]
    return harness.table(head, rows), figures


def flood(port: int, seconds: int) -> Flood:
    """Send as a banned actor without pause for that long."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "20s"]
    command += ["-s", "benchmarks/flood.lua", f"http://127.0.0.1:{port}/public/gossip"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("FLOOD "))
    duration, banned, limited, others = map(int, line.split()[1:])
    if others or not limited:
        raise SystemExit(f"a banned actor is answered something else than 403 or 429: {output}")
    return Flood(banned / (duration / 1e6), limited / (duration / 1e6))


if __name__ == "__main__":
    main()
