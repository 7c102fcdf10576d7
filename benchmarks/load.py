"""wrk, and what it says: one thread, 16 connections unless told otherwise."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, TOKEN, next_volume


@dataclass(frozen=True)
class Load:
    """``rate`` in requests a second; latencies in milliseconds."""

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
    """Ask for ``url`` without pause; ends the benchmark when an answer failed."""
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
    """The symbols' bars of today up to their volume, a line each, for gossip.lua."""
    from benchmarks.harness import DAY, series

    path = folder / "bars.txt"
    bars = [series(symbol, [DAY])[0].encode().decode() for symbol in symbols]
    path.write_text("".join(f"{bar[: bar.rindex(':') + 1]}\n" for bar in bars))
    return path


def gossip(url: str, heads: Path, *, bars: int, seconds: int) -> Load:
    """POSTs of ``bars`` changed bars each to the token door.

    Lists by half of the usual connections: with more of them under way than gossip.lua has sets of
    symbols for, a list overtakes an earlier one of its set, which then changes nothing.
    """
    return wrk(
        f"{url}/gossip",
        seconds=seconds,
        connections=16 if bars == 1 else 8,
        script="gossip.lua",
        arguments=[str(heads), str(bars), str(next_volume()), TOKEN],
    )
