"""The load generator wrk and its report: one thread, by default 16 connections."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, TOKEN, next_volume


@dataclass(frozen=True)
class Load:
    """The result of a load: ``rate`` in requests a second, latencies in milliseconds."""

    requests: int
    rate: float
    p50: float
    p99: float
    slowest: float


def wrk(
    url: str,
    *,
    seconds: int,
    connections: int = 16,
    headers: Mapping[str, str] | None = None,
    script: str = "report.lua",
    arguments: Sequence[str] = (),
) -> Load:
    """Request ``url`` without pause; the benchmark ends when an answer is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    command += ["-s", f"benchmarks/{script}"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    output = subprocess.run(
        [*command, url, *(["--", *arguments] if arguments else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("REPORT "))
    requests, duration, p50, p99, slowest, failed = map(int, line.split()[1:])
    if failed or not requests:
        raise SystemExit(f"{url}: {failed} of {requests} requests failed\n{output}")
    return Load(requests, requests / (duration / 1e6), p50 / 1000, p99 / 1000, slowest / 1000)


def heads_file(folder: Path, symbols: Sequence[str]) -> Path:
    """Write the beginnings of today's bars, up to the volume, a line each, for gossip.lua."""
    from benchmarks.harness import DAY, series

    path = folder / "bars.txt"
    bars = [series(symbol, [DAY])[0].encode().decode() for symbol in symbols]
    path.write_text("".join(f"{bar[: bar.rindex(':') + 1]}\n" for bar in bars))
    return path


def gossip(url: str, heads: Path, *, bars: int, seconds: int) -> Load:
    """Post ``bars`` changed bars at a time to the token door.

    Lists have half of the usual connections: with more of them under way than gossip.lua has sets
    of symbols, a list overtakes an earlier one of its set, which then changes nothing.
    """
    return wrk(
        f"{url}/gossip",
        seconds=seconds,
        connections=16 if bars == 1 else 8,
        script="gossip.lua",
        arguments=[str(heads), str(bars), str(next_volume()), TOKEN],
    )
