"""The demo (``make demo``): a whole network on one machine, on any weekday and hour.

It is an exchange simulator, a core node that fetches from it, and a public node that follows the
core; each node is gunicorn, a worker, and a Redis or Valkey server. It brings its own settings, so
this is no Django command: no setting of .env or of the environment reaches it. Its data lies in
var/demo and is made anew each time.
"""

import datetime as dt
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes, free_port, stop_on_signals
from simulator.clock import AcceleratedClock, session_start
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tickers.universe import Universe

BASE_DIR = Path(__file__).resolve().parents[2]
DATA = BASE_DIR / "var" / "demo"

SPEED = 10.0  # simulated seconds in a real one; the session lasts half an hour
HISTORY = dt.timedelta(days=400)
SEED = 230  # of a market in which the best-known symbols trade every minute
CYCLE = 2.0  # seconds
REPORT_EVERY = 3.0  # seconds
START_TIMEOUT = 90.0  # seconds

# The limits of the simulated exchange, which the core node's settings repeat.
REQUESTS_PER_MINUTE = 150
SYMBOLS_A_REQUEST = 100


def main() -> None:
    stop = stop_on_signals()
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # it asks this machine only
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    opening = session_start(dt.datetime.now(dt.UTC))
    clock = AcceleratedClock(opening, SPEED, until=opening.replace(hour=14, minute=45))
    market = SimulatedMarket(
        Universe.read(),
        clock=clock,
        seed=SEED,
        history_start=opening.date() - HISTORY,
    )
    simulator = SimulatorServer(
        market, requests_per_minute=REQUESTS_PER_MINUTE, max_symbols=SYMBOLS_A_REQUEST
    )
    core_port = free_port(int(os.environ.get("PORT", "3000")), taken=set())
    public_port = free_port(core_port + 1, taken={core_port})
    password = secrets.token_urlsafe(9)
    try:
        with simulator, Processes() as processes:
            core = core_environment(core_port, simulator.url, opening)
            start_node(processes, "core", core, password)
            start_node(processes, "public", public_environment(core, public_port), password)
            if wait_for_market(core_port, public_port, processes, stop):
                say_where(simulator.url, core_port, public_port, password)
                report(core_port, public_port, clock, processes, stop)
            say("Stopping.")
    finally:
        for name in ("core", "public"):
            embedded_redis.stop(DATA / name)


# --- Nodes ----------------------------------------------------------------------------------------


def core_environment(port: int, vci_url: str, opening: dt.datetime) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "ENV_FILE": os.devnull,
        "ENVIRONMENT": "development",
        "NODE_NAME": "demo-core",
        "PORT": str(port),
        "DATA_DIR": str(DATA / "core"),
        "PRIMARY_TOKEN": secrets.token_hex(16),
        "SECONDARY_TOKEN": secrets.token_hex(16),
        "SECRET_KEY": secrets.token_hex(32),
        "VCI_BASE_URL": vci_url,
        "VCI_RATE_LIMIT": str(REQUESTS_PER_MINUTE),
        "VCI_BATCH_SIZE": str(SYMBOLS_A_REQUEST),
        "CORE_WORKER_INTERVAL": str(CYCLE),
        "HISTORY_START": (opening.date() - HISTORY).isoformat(),
        "DEBUG_SYSTEM_TIME": opening.isoformat(),
    }


def public_environment(core: dict[str, str], port: int) -> dict[str, str]:
    return {
        **core,
        "NODE_NAME": "demo-public",
        "PORT": str(port),
        "DATA_DIR": str(DATA / "public"),
        "CORE_NETWORK_URL": f"http://127.0.0.1:{core['PORT']}",
        "PUBLIC_REFRESH_INTERVAL": "1",
    }


def start_node(processes: Processes, name: str, environment: dict[str, str], password: str) -> None:
    """Migrate, make the admin's login, and start the API and the worker."""
    say(f"Starting the {name} node; its log is {(DATA / name).relative_to(BASE_DIR)}.log")
    log = DATA / f"{name}.log"
    login = {
        "DJANGO_SUPERUSER_USERNAME": "admin",
        "DJANGO_SUPERUSER_EMAIL": "admin@localhost",
        "DJANGO_SUPERUSER_PASSWORD": password,
    }
    for command in (["migrate", "--verbosity=0"], ["createsuperuser", "--noinput"]):
        done = subprocess.run(  # noqa: S603 - our own commands, no shell
            [sys.executable, "manage.py", *command],
            cwd=BASE_DIR,
            env={**environment, **login},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"demo: {command[0]} of the {name} node failed: {done.stderr.strip()[-500:]}")
    api = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py")
    worker = (sys.executable, "manage.py", "run_worker")
    processes.start(f"the {name} node's API", *api, env=environment, cwd=BASE_DIR, log=log)
    processes.start(f"the {name} node's worker", *worker, env=environment, cwd=BASE_DIR, log=log)


def wait_for_market(
    core_port: int, public_port: int, processes: Processes, stop: threading.Event
) -> bool:
    """Wait until both nodes serve the whole market; False when stopped before."""
    say("Loading the history ...")
    deadline = time.monotonic() + START_TIMEOUT
    while not stop.wait(0.3):
        if fallen := processes.fallen():
            sys.exit(f"demo: {fallen}; the logs in {DATA} say why")
        if all(is_filled(health(port)) for port in (core_port, public_port)):
            return True
        if time.monotonic() > deadline:
            sys.exit(f"demo: the nodes weren't filled in {START_TIMEOUT:g} s; see {DATA}")
    return False


def is_filled(status: dict[str, Any]) -> bool:
    return bool(status) and status["symbols_filled"] >= status["symbols_known"]


def health(port: int) -> dict[str, Any]:
    try:
        return dict(requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json())
    except (requests.RequestException, ValueError):
        return {}


# --- Output ---------------------------------------------------------------------------------------


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_where(simulator_url: str, core_port: int, public_port: int, password: str) -> None:
    say(f"""
  Core node     http://127.0.0.1:{core_port}/
  Public node   http://127.0.0.1:{public_port}/   (follows the core node)
  Admin         http://127.0.0.1:{core_port}/admin/   login: admin   password: {password}
  Exchange      {simulator_url}   (simulated, {SPEED:g} times as fast as life)

  Try:  curl 'http://127.0.0.1:{public_port}/tickers?symbol=VCB&limit=2'
        curl 'http://127.0.0.1:{core_port}/health'
  Ctrl-C stops everything.
""")


def report(
    core_port: int,
    public_port: int,
    clock: AcceleratedClock,
    processes: Processes,
    stop: threading.Event,
) -> None:
    """Print a line every few seconds with the largest moves that the public node serves."""
    before = closes(public_port)
    while not stop.wait(REPORT_EVERY):
        if fallen := processes.fallen():
            sys.exit(f"demo: {fallen}; the logs in {DATA} say why")
        now = closes(public_port)
        moved = {s: (before[s], now[s]) for s in now if s in before and before[s] != now[s]}
        core, public = health(core_port), health(public_port)
        say(
            f"{clock():%H:%M:%S}  {len(moved):3d} moved  {', '.join(largest(moved)) or '-':<60}"
            f"  core revision {core.get('revision')}, public {public.get('revision')}"
        )
        before = now or before


def closes(port: int) -> dict[str, float]:
    try:
        market = requests.get(f"http://127.0.0.1:{port}/tickers?limit=1", timeout=5).json()
        return {symbol: bars[-1]["close"] for symbol, bars in market.items()}
    except (requests.RequestException, ValueError, AttributeError, LookupError):
        return {}


def largest(moved: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Yield the three largest moves as text: ``VCB 64,300 → 64,400 (+0.16 %)``."""
    by_size = sorted(moved.items(), key=lambda item: -abs(item[1][1] / item[1][0] - 1))
    for symbol, (old, new) in by_size[:3]:
        yield f"{symbol} {old:,g} → {new:,g} ({new / old - 1:+.2%})"


if __name__ == "__main__":
    main()
