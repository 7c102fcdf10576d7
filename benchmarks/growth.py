"""The cost of a larger market: a changed bar's latency, memory in Redis and in a web process.

Measured for each market are the time from just before Store.merge of one changed bar until a client
that asks without pause (one kept-alive connection) is served it; the market's memory in Redis,
beside the length of its plain JSON; and the largest web process after it has served the whole
market. --all adds the largest markets, which need 10 GB of memory and a quarter of an hour.
"""

import contextlib
import http.client
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks import harness, servers, svg
from benchmarks.harness import RESULTS, Bench, Run, verdict

if TYPE_CHECKING:
    from tickers.store.store import Store

SYMBOLS = (100, 300, 1_000, 3_000)
BARS = (250, 1_000, 5_000)
LARGEST = 1_500_000  # bars, without --all
QUICK = 80_000  # bars, with --quick
WEB = ((287, 100), (287, 400))
SLOWER, REDIS_BYTES, WEB_MEMORY = 2.0, 2.5, 120.0  # to reach; the last in MB


@dataclass(frozen=True)
class Market:
    """The figures of one size: times in ms, sizes in bytes, Redis without an empty server's."""

    symbols: int
    bars: int
    visible: float
    visible_p99: float
    plain_json: int
    memory: int
    aof: int
    web_process: int

    @property
    def redis_share(self) -> float:
        return (self.memory + self.aof) / self.plain_json


def main() -> None:
    run = harness.read_options(__doc__)
    most = 10**9 if run.everything else QUICK if run.quick else LARGEST
    sizes = [(s, b) for b in BARS for s in SYMBOLS if s * b <= most]
    with harness.bench(servers.free_port(), MAX_SYMBOLS="3000") as bench:
        markets = [measure(bench, symbols, bars, run) for symbols, bars in sizes]
        web = [measure(bench, symbols, bars, run) for symbols, bars in WEB]
    publish(run, markets, web)


# --- Measuring ----------------------------------------------------------------------------------


def measure(bench: Bench, symbols: int, bars: int, run: Run) -> Market:
    from tickers import wiring

    empty = wiring.store().client
    empty.flushdb()
    before = used_memory(empty)
    store = harness.fill(symbols, bars, todays_by_peer=True)
    bench = bench.on(servers.free_port())  # the last one's may be taken after so long a pause
    memory, aof = used_memory(store.client) - before, rewritten_aof(store.client)
    with servers.node(bench) as gunicorn, client(bench) as connection:
        for _ in range(4):  # gunicorn's workers take turns, more or less
            # Each has a connection: compressing the largest takes longer than an idle one is kept.
            for encoding in ("gzip", "zstd", "identity"):
                with client(bench) as another:
                    plain_json = len(get(another, "/tickers", encoding=encoding))
        name = harness.symbol_names(symbols)[symbols // 2]
        ways = [visible(store, connection, name) for _ in range(10 if run.quick else 100)]
        workers = psutil.Process(gunicorn.pid).children(recursive=True)
        web_process = max(worker.memory_info().rss for worker in workers)
    found = Market(
        symbols,
        bars,
        statistics.median(ways),
        harness.percentile(ways, 99),
        plain_json,
        memory,
        aof,
        web_process,
    )
    print(found, flush=True)
    return found


@contextlib.contextmanager
def client(bench: Bench) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", bench.port, timeout=120)
    with contextlib.closing(connection):
        yield connection


def get(connection: http.client.HTTPConnection, path: str, *, encoding: str = "identity") -> bytes:
    connection.request("GET", path, headers={"Accept-Encoding": encoding})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} answers {answer.status}")
    return body


def visible(store: "Store", connection: http.client.HTTPConnection, symbol: str) -> float:
    """Measure the ms from a changed bar, which comes after a pause, to its first answer."""
    from tickers.snapshot.listener import PAUSE
    from tickers.verdict import Authority

    time.sleep(random.uniform(PAUSE, 3 * PAUSE))
    get(connection, f"/tickers?symbol={symbol}&limit=1")
    bars = harness.changed_bars([symbol])
    began = time.perf_counter()
    store.merge(bars, Authority.INTERNAL)
    while True:
        served = json.loads(get(connection, f"/tickers?symbol={symbol}&limit=1"))
        passed = (time.perf_counter() - began) * 1000
        if served[symbol][-1]["volume"] == bars[0].volume:
            return passed
        if passed > 30_000:
            raise SystemExit(f"a changed bar of {symbol} isn't served after 30 s")


def used_memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def rewritten_aof(client: Any) -> int:
    """Have the append-only file rewritten, and return its size in bytes."""
    deadline = time.monotonic() + 120
    asked = False
    while True:
        state = client.info("persistence")
        busy = state["aof_rewrite_in_progress"] or state.get("aof_rewrite_scheduled")
        if asked and not busy:
            return int(state["aof_current_size"])
        if not busy:
            client.bgrewriteaof()
            asked = True
        if time.monotonic() > deadline:
            raise SystemExit("the store doesn't finish its append-only file")
        time.sleep(0.1)


# --- Results ------------------------------------------------------------------------------------


def publish(run: Run, markets: list[Market], web: list[Market]) -> None:
    small, large = web
    bar = (large.web_process - small.web_process) / (
        large.symbols * large.bars - small.symbols * small.bars
    )
    slower = markets[-1].visible / markets[0].visible
    share = max(market.redis_share for market in [*markets, *web])
    megabytes = large.web_process / 2**20
    web_name = f"a web process at 287 × 400 bars; a bar more: {bar:,.0f} bytes"  # noqa: RUF001
    rows = [
        [
            "one changed bar to visible, largest over smallest market",
            *(f"{slower:.2f}", f"≤ {SLOWER:g}", verdict(slower <= SLOWER)),
        ],
        [
            "bytes in Redis (memory and AOF) a byte of plain JSON, most",
            *(f"{share:.2f}", f"≤ {REDIS_BYTES:g}", verdict(share <= REDIS_BYTES)),
        ],
        [
            web_name,
            *(f"{megabytes:,.0f} MB", f"≤ {WEB_MEMORY:g} MB", verdict(megabytes <= WEB_MEMORY)),
        ],
    ]
    text = harness.table(["what", "measured", "to reach", "reached"], rows)
    text += f"\n\n{sizes_table([*markets, *web])}"
    for name, (title, y_name, of) in CURVES.items():
        text += f"\n\n![{title}](growth-{name}.svg)"
        if not run.quick:
            lines = {
                f"{bars:,} bars each": points
                for bars in BARS
                if (points := [(m.symbols, of(m)) for m in markets if m.bars == bars])
            }
            drawn = svg.chart(title, "symbols", y_name, lines)
            (RESULTS.parent / f"growth-{name}.svg").write_text(drawn)
    harness.publish(run, "growth", text, [asdict(market) for market in [*markets, *web]])


CURVES: dict[str, Any] = {
    "visible": ("From one changed bar to visible", "ms, median", lambda m: m.visible),
    "redis": (
        "Bytes in Redis (memory and AOF)",
        "MB",
        lambda m: (m.memory + m.aof) / 2**20,
    ),
    "web": ("A web process", "MB", lambda m: m.web_process / 2**20),
}


def sizes_table(markets: list[Market]) -> str:
    head = ["symbols", "bars each", "visible, p50 (ms)", "p99 (ms)", "plain JSON (MB)"]
    head += ["Redis memory, of JSON", "AOF, of JSON", "web process (MB)"]
    rows = [
        [
            *(f"{m.symbols:,}", f"{m.bars:,}", f"{m.visible:.1f}", f"{m.visible_p99:.1f}"),
            *(f"{m.plain_json / 2**20:,.1f}", f"{m.memory / m.plain_json:.2f}"),
            *(f"{m.aof / m.plain_json:.2f}", f"{m.web_process / 2**20:,.0f}"),
        ]
        for m in markets
    ]
    return harness.table(head, rows)


if __name__ == "__main__":
    main()
