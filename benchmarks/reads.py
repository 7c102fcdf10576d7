"""The rate of reads from a node, as a ratio to the same bytes from a bare WSGI function.

Data: 287 symbols x 100 bars. If nginx is installed, reads behind deploy/nginx-site.conf are
measured too.
"""

import contextlib
import gzip
import http.client
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from benchmarks import front, harness, load, profiles, servers
from benchmarks.harness import Run, verdict
from benchmarks.load import Load

SYMBOL = "VCB"


@dataclass(frozen=True)
class Work:
    """A kind of read. ``floor`` names the bytes it is compared with; ``alone`` and ``behind`` are
    the ratios to reach without and with nginx in front."""

    name: str
    path: str
    floor: str
    alone: float
    behind: float
    accept: str = "identity"
    conditional: bool = False


WORK = (
    Work("one symbol, last bar", f"/tickers?symbol={SYMBOL}&limit=1", "bar", 0.40, 4.0),
    Work("one symbol, 100 bars", f"/tickers?symbol={SYMBOL}", "series", 0.40, 4.0),
    Work("last bar of every symbol", "/tickers?limit=1", "last", 0.40, 3.5),
    Work("whole market, plain", "/tickers", "market", 0.85, 0.9),
    Work("whole market, gzip", "/tickers", "market_gzip", 0.6, 1.0, accept="gzip"),
    Work(
        "If-None-Match → 304, of the one-symbol floor",
        f"/tickers?symbol={SYMBOL}&limit=1",
        "bar",
        0.40,
        3.0,
        conditional=True,
    ),
)


@dataclass(frozen=True)
class Fetched:
    status: int
    body: bytes
    encoding: str
    etag: str


def fetch(port: int, path: str, headers: dict[str, str]) -> Fetched:
    """Fetch one answer, with its body as it was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        return Fetched(
            answer.status,
            body,
            answer.getheader("Content-Encoding", "identity"),
            answer.getheader("ETag", ""),
        )


def main() -> None:
    run = harness.read_options(__doc__)
    with harness.bench(servers.free_port()) as bench:
        store = harness.fill(287, 100)
        with contextlib.ExitStack() as stack:
            gunicorn = stack.enter_context(servers.node(bench)).pid
            places = {"alone": bench.port}
            if (behind := stack.enter_context(front.nginx(bench))) is not None:
                places["behind"] = behind
            bodies = {work.floor: body_of(bench.port, work) for work in WORK}
            floor = stack.enter_context(servers.floor(bench, bodies))
            rows, figures = [], []
            for work in WORK:
                row, figure = measure(work, run, floor, places, len(bodies[work.floor]))
                rows.append(row)
                figures.append(figure)
            busy = profiles.processor_time(
                {work.name: loading(bench.port, work, run.seconds) for work in WORK},
                gunicorn=gunicorn,
                store=store,
            )
    head = ["work", "bytes", "gunicorn alone, of the floor", "to reach", "reached", "a second"]
    if "behind" in places:
        head += ["behind nginx, of the floor", "to reach", "reached", "a second"]
    text = f"{harness.table(head, rows)}\n\nGunicorn alone:\n\n{busy}"
    harness.publish(run, "reads", text, figures)


def body_of(port: int, work: Work) -> bytes:
    """Return the bytes of the node's answer, which the floor serves too."""
    answer = fetch(port, work.path, {"Accept-Encoding": work.accept})
    if answer.status != 200:
        raise SystemExit(f"{work.path} answers {answer.status}")
    if work.accept == "gzip" and answer.encoding != "gzip":
        print("The node answers without compression: its plain market against a gzipped floor.")
        return gzip.compress(answer.body, 6)
    return answer.body


def measure(
    work: Work, run: Run, floor: str, places: dict[str, int], size: int
) -> tuple[list[str], dict[str, object]]:
    measurements: dict[str, Callable[[], float]] = {
        "floor": rate_of(partial(load.wrk, f"{floor}/{work.floor}", seconds=run.seconds))
    }
    for place, port in places.items():
        measurements[place] = rate_of(loading(port, work, run.seconds))
    for warm_up in measurements.values():
        warm_up()
    values = harness.interleave(measurements, run.rounds)
    row = [work.name, f"{size:,}"]
    figure: dict[str, object] = {"work": work.name, "bytes": size, "rates": values}
    for place, target in (("alone", work.alone), ("behind", work.behind)):
        if place in values:
            found = harness.ratios(values[place], values["floor"])
            rates = harness.Figure.of(values[place])
            row += [found.text(), f"{target:g}", verdict(found.median >= target)]
            row.append(f"{rates.median:,.0f}")
            figure[place] = {**asdict(found), "target": target}
    print(" ".join(row), flush=True)
    return row, figure


def loading(port: int, work: Work, seconds: int) -> Callable[[], Load]:
    """Return a run of wrk on this work at a port, after a check that the answer is right."""
    headers = {"Accept-Encoding": work.accept}
    if work.conditional:
        headers["If-None-Match"] = fetch(port, work.path, headers).etag
        if fetch(port, work.path, headers).status != 304:
            raise SystemExit(f"{work.path} with its own ETag isn't answered 304")
    url = f"http://127.0.0.1:{port}{work.path}"
    return partial(load.wrk, url, seconds=seconds, headers=headers)


def rate_of(loaded: Callable[[], Load]) -> Callable[[], float]:
    return lambda: loaded().rate


if __name__ == "__main__":
    main()
