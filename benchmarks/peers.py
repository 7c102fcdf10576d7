"""The cost of more peers: the time from a merge to the last of 1, 3, 10 and 50 internal peers.

Delivery is the node's own, in a process with nothing else to do; the peers are stubs that accept
everything (peer_stubs.py). Each time one bar, or every symbol's, changes.
"""

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import harness, servers
from benchmarks.harness import ROOT, Figure, Run

if TYPE_CHECKING:
    from tickers.store.store import Store

PEERS = (1, 3, 10, 50)


def main() -> None:
    run = harness.read_options(__doc__)
    found: dict[int, dict[str, list[float]]] = {}
    with harness.bench(servers.free_port()):
        for count in PEERS:
            store = harness.fill(287, 100)
            found[count] = delays(store, count, samples=10 if run.quick else 30 * run.rounds)
    report(run, found)


def delays(store: "Store", count: int, *, samples: int) -> dict[str, list[float]]:
    """Measure the ms until the last of ``count`` peers has the bars, by how many change."""
    from gossip.delivery.delivery import Delivery
    from gossip.delivery.peer import Peer, PeerKind

    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peer_stubs", str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as stubs:
        ports = next(iter(stubs.stdout or [])).split()
        peers = [Peer(f"http://127.0.0.1:{port}", PeerKind.INTERNAL, "token") for port in ports]
        store.client.delete("{market}:lease")
        fence = next_fence(store)
        delivery = Delivery(store=store, peers=peers, clock=store.clock)
        delivery.start(fence)
        try:
            names = harness.symbol_names(287)
            await_all(stubs, ports)  # the whole market, once
            return {
                f"{len(changing)} bars": [
                    delay(store, delivery, fence, changing, stubs, ports) for _ in range(samples)
                ]
                for changing in (names[:1], names)
            }
        finally:
            delivery.stop(timeout=5)
            stubs.terminate()


def next_fence(store: "Store") -> str:
    from tickers.store.store import ROOT

    store.client.delete(f"{ROOT}:lease")  # the one that filled the store
    fence = store.acquire_lease(3_600)
    if fence is None:
        raise SystemExit("the benchmark's own store has a leader already")
    return fence


def delay(
    store: "Store", delivery: Any, fence: str, names: list[str], stubs: Any, ports: list[str]
) -> float:
    from tickers.verdict import Authority

    bars = harness.changed_bars(names)
    began = time.perf_counter()
    store.merge(bars, Authority.CORE, fence=fence)
    delivery.wake()
    return (await_all(stubs, ports) - began) * 1000


def await_all(stubs: Any, ports: list[str]) -> float:
    """Wait until each peer was sent something; returns when the last was (perf_counter)."""
    waiting, last = set(ports), 0.0
    while waiting:
        port, moment = next(iter(stubs.stdout)).split()
        waiting.discard(port)
        last = max(last, float(moment))
    return last


def report(run: Run, found: dict[int, dict[str, list[float]]]) -> None:
    rows = [
        [
            f"{count}",
            *(
                f"{Figure.of(ways).median:,.1f} / {harness.percentile(ways, 99):,.1f}"
                for ways in by_bars.values()
            ),
        ]
        for count, by_bars in found.items()
    ]
    head = ["internal peers", "1 bar, p50 / p99 (ms)", "287 bars, p50 / p99 (ms)"]
    harness.publish(run, "peers", harness.table(head, rows), {str(n): w for n, w in found.items()})


if __name__ == "__main__":
    main()
