"""The simulator as a program: ``python -m simulator`` runs it until SIGINT or SIGTERM."""

import argparse
import datetime as dt
import signal
import sys
import threading
from pathlib import Path

from simulator.clock import AcceleratedClock, session_start
from simulator.market import SimulatedMarket, SimulationError
from simulator.server import SimulatorServer
from tickers.universe import DEFAULT_FILE, Universe, UniverseError


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal, and return the exit code; print the URL once the simulator answers."""
    options = _parser().parse_args(arguments)
    leave = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: leave.set())
    try:
        with _server(options) as server:
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            leave.wait()
    except (SimulationError, UniverseError, ValueError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


def _server(options: argparse.Namespace) -> SimulatorServer:
    start = options.start or session_start(dt.datetime.now(dt.UTC))
    market = SimulatedMarket(
        Universe.read(options.universe),
        clock=AcceleratedClock(start, options.speed, until=options.until),
        seed=options.seed,
        history_start=options.history_start,
    )
    return SimulatorServer(
        market,
        port=options.port,
        requests_per_minute=options.requests_per_minute,
        max_symbols=options.max_symbols,
        latency=options.latency_ms / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="A stand-in for the broker's chart API, on loopback, with made-up prices.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    moment = "ISO 8601 with its offset, such as 2025-08-15T09:30:00+07:00"
    add = parser.add_argument
    add("--port", type=int, default=9200, help="0 takes a free one")
    add("--speed", type=float, default=1.0, help="seconds of the simulation in a real one")
    add("--start", type=dt.datetime.fromisoformat, help=f"{moment}; unset: 09:30 of a trading day")
    add("--until", type=dt.datetime.fromisoformat, help="when its clock stops; unset: never")
    add("--seed", type=int, default=1, help="another seed, another market")
    add("--history-start", type=dt.date.fromisoformat, default=dt.date(2024, 1, 1))
    add("--universe", type=Path, default=DEFAULT_FILE, help="CSV: symbol, exchange, sector")
    add("--requests-per-minute", type=int, default=0, help="more get 429; 0: no limit")
    add("--max-symbols", type=int, default=0, help="more in a request get 400; 0: no limit")
    add("--latency-ms", type=float, default=0.0, help="before each answer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
