"""A core node's cycle, and the time until its peers serve what it fetched; all real processes.

A core node (gunicorn and worker) fetches 287 symbols from the exchange simulator, which waits
100 ms before each answer, at VCI_BATCH_SIZE=100, and sends to three internal peers (gunicorn each,
two workers), every one with a store of its own. Before a cycle one bar, or every symbol's, changes
at the exchange. Propagation is timed from the moment when the simulator has looked up the last bar
of the cycle's last answer, just before it sends it, until the last of the three serves that bar.
How much lies in that answer is the node's choice, so a change of every bar is timed from the first
answer that shows it, too.
"""

import contextlib
import datetime as dt
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from benchmarks import harness, servers
from benchmarks.harness import Bench, Figure, Run, verdict
from proxy_site.local import embedded_redis
from simulator.clock import AcceleratedClock
from simulator.market import Frame, SimulatedBar, SimulatedMarket
from simulator.server import SimulatorServer
from tickers.universe import Universe

PEERS = 3
LATENCY = 0.1  # seconds, of the simulator
HISTORY_START = dt.date(2025, 6, 2)
CYCLE_WITHIN, REQUESTS = 1.0, 3  # to reach
P50, P99 = 30.0, 100.0  # ms, to reach


class StampedMarket(SimulatedMarket):
    """A simulated market that notes when bars with a new volume are looked up.

    ``answered_at`` is when ``watched`` was, ``first_at`` when the first symbol was (perf_counter).
    """

    def __init__(self, universe: Universe, watched: str) -> None:
        super().__init__(
            universe,
            clock=AcceleratedClock(harness.NOW, 0),
            seed=5,
            history_start=HISTORY_START,
        )
        self.watched = watched
        self.answered = threading.Event()
        self.answered_at = self.first_at = 0.0
        self._awaited: int | None = None

    def expect(self, volume: int) -> None:
        self._awaited, self.first_at = volume, 0.0
        self.answered.clear()

    def bars(
        self, symbol: str, *, frame: Frame, to: int, count_back: int = 0
    ) -> list[SimulatedBar]:
        found = super().bars(symbol, frame=frame, to=to, count_back=count_back)
        if found and found[-1].volume == self._awaited:
            self.first_at = self.first_at or time.perf_counter()
            if symbol == self.watched:
                self._awaited = None
                self.answered_at = time.perf_counter()
                self.answered.set()
        return found


def main() -> None:
    run = harness.read_options(__doc__)
    samples = 5 if run.quick else max(100, 15 * run.rounds)
    universe = Universe.read()
    market = StampedMarket(universe, watched=universe.symbols[-1])
    folder = Path(tempfile.mkdtemp(prefix="aipriceaction-bench-"))
    try:
        with contextlib.ExitStack() as stack:
            exchange = stack.enter_context(SimulatorServer(market, latency=LATENCY))
            peers = [stack.enter_context(node(folder / f"peer{n}")) for n in range(PEERS)]
            settings = {
                "VCI_BASE_URL": exchange.url,
                "VCI_RATE_LIMIT": "6000",  # the default's 2 s a request would hide the cycle's time
                "VCI_BATCH_SIZE": "100",
                "CORE_WORKER_INTERVAL": "0.6",
                "INTERNAL_PEER_URLS": ",".join(peer.url for peer in peers),
            }
            core = stack.enter_context(node(folder / "core", worker=True, **settings))
            wait_for_cycles(core)
            network = Network(exchange, market, core)
            one, every = universe.symbols[-1:], universe.symbols
            ways = {
                "1 bar": network.delays(one, peers, samples),
                "287 bars": network.delays(every, peers, samples),
                "287 bars from the first answer on": network.of_first_answer[-samples:],
                "287 bars, at the core itself": network.delays(every, [core], samples // 2),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(run, ways, list(network.cycles.values()))


def report(run: Run, ways: dict[str, list[float]], cycles: list[dict[str, Any]]) -> None:
    seconds = Figure.of([cycle["duration"] for cycle in cycles])
    requested = max(cycle["requests"] for cycle in cycles)
    reached = verdict(seconds.median < CYCLE_WITHIN)
    rows = [
        ["a cycle of 287 symbols", f"{seconds.text()} s", f"< {CYCLE_WITHIN:g} s", reached],
        ["requests of a cycle, most", f"{requested}", f"≤ {REQUESTS}"],
    ]
    rows[1].append(verdict(requested <= REQUESTS))
    for name, delays in ways.items():
        for percent, target in ((50, P50), (99, P99)):
            found = harness.percentile(delays, percent)
            where = name if "core" in name else f"{name}, to the last of three peers"
            row = [f"from an answer to visible, {where}, p{percent}", f"{found:,.0f} ms"]
            has_target = name in ("1 bar", "287 bars")
            judged = [f"≤ {target:g} ms", verdict(found <= target)] if has_target else []
            rows.append([*row, *(judged or ["", ""])])
    text = harness.table(["what", "measured", "to reach", "reached"], rows)
    counts = ", ".join(f"{len(delays)} of {name}" for name, delays in ways.items())
    text += f"\n\n{len(cycles)} cycles; changes: {counts}."
    harness.publish(run, "cycle", text, {"propagation_ms": ways, "cycles": cycles})


# --- Nodes --------------------------------------------------------------------------------------


@contextlib.contextmanager
def node(folder: Path, *, worker: bool = False, **settings: str) -> Iterator[Bench]:
    """Run a node with a store of its own; the API alone unless ``worker``."""
    folder.mkdir()
    port = servers.free_port()
    settings["HISTORY_START"] = HISTORY_START.isoformat()
    env = harness.environment(folder / "data", port, **settings)
    bench = Bench(folder, env, port)
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "--verbosity=0"], cwd=harness.ROOT, env=env, check=True)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(servers.node(bench))
            if worker:
                log = folder / "worker.log"
                command = [*manage, "run_worker"]
                stack.enter_context(servers.running(command, env=env, log=log))
            yield bench
    finally:
        embedded_redis.stop(folder / "data")


def last_cycle(core: Bench) -> dict[str, Any]:
    """Return the worker's iterations and its last cycle, from /health."""
    worker = requests.get(f"{core.url}/health", timeout=10).json()["worker"]
    return {"iterations": worker.get("iterations", 0), **worker.get("cycle", {})}


def wait_for_cycles(core: Bench, count: int = 3) -> None:
    """Wait until the whole history is loaded, and some cycles more."""
    deadline = time.monotonic() + 120
    while (cycle := last_cycle(core))["iterations"] < count:
        if time.monotonic() > deadline:
            log = (core.folder / "worker.log").read_text(errors="replace")
            raise SystemExit(f"the core node makes no cycles: {cycle}\n{log[-2000:]}")
        time.sleep(0.2)


# --- Measuring ----------------------------------------------------------------------------------


class Network:
    """The network under test; ``cycles`` has the core's cycles that were seen, by their number.

    ``of_first_answer`` has for each delay, in its order, the ms from the cycle's first answer that
    showed the change.
    """

    def __init__(self, exchange: SimulatorServer, market: StampedMarket, core: Bench) -> None:
        self.cycles: dict[int, dict[str, Any]] = {}
        self.of_first_answer: list[float] = []
        self._exchange, self._market, self._core = exchange, market, core

    def delays(self, changing: list[str], nodes: list[Bench], samples: int) -> list[float]:
        """Measure the ms from the answer until the last of ``nodes`` serves the watched symbol's
        bar.

        ``changing`` names the symbols whose bars change each time, the watched one among them.
        """
        watchers = [Watcher(node.port, self._market.watched) for node in nodes]
        try:
            return [self._delay(changing, watchers) for _ in range(samples)]
        finally:
            for watcher in watchers:
                watcher.close()

    def _delay(self, changing: list[str], watchers: list["Watcher"]) -> float:
        volume = harness.next_volume()
        self._market.expect(volume)
        self._exchange.set_bars({symbol: {"volume": volume} for symbol in changing})
        if not self._market.answered.wait(20):
            raise SystemExit("the core node doesn't ask the exchange any more")
        for watcher in watchers:
            watcher.expect(volume)
        arrived = [watcher.served_at() for watcher in watchers]
        cycle = last_cycle(self._core)
        self.cycles[cycle["iterations"]] = cycle
        self.of_first_answer.append((max(arrived) - self._market.first_at) * 1000)
        return (max(arrived) - self._market.answered_at) * 1000


class Watcher:
    """A client of one peer, in a process of its own (watch.py)."""

    def __init__(self, port: int, symbol: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.watch", str(port), symbol],
            cwd=harness.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def expect(self, volume: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{volume}\n")
        self._process.stdin.flush()

    def served_at(self) -> float:
        """Return the moment (perf_counter) when the symbol's last bar had the expected volume."""
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise SystemExit("a change wasn't served by every node: see above")
        return float(line)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # which ends the process
        self._process.wait(15)


if __name__ == "__main__":
    main()
