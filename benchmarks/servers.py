"""The servers under test, on loopback: a node's gunicorn, the floor, and nginx in front.

Each lives exactly as long as its block, and is ended by the benchmark that started it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from benchmarks.harness import ROOT, Bench

START_WITHIN = 60.0  # seconds: a node reads its market before it answers
# A worker that is recycled in a round would fail that round's requests.
GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--max-requests", "0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], *, env: Mapping[str, str], log: Path, answers: str = ""
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process, from its first answer at the URL ``answers`` (if any) to the block's end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends the benchmark, which ends its processes in order
        )
    try:
        if answers:
            _await_answer(process, answers, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its whole session: its workers too
            process.wait()


def _await_answer(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while True:
        with contextlib.suppress(requests.RequestException):
            requests.get(url, timeout=START_WITHIN)
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{url} doesn't answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def node(bench: Bench, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the node's API under gunicorn, by gunicorn.conf.py and ``options``."""
    log = bench.folder / "node.log"
    command = [*GUNICORN, *options]
    with running(command, env=bench.env, log=log, answers=f"{bench.url}/health") as process:
        yield process


@contextlib.contextmanager
def floor(bench: Bench, bodies: Mapping[str, bytes]) -> Iterator[str]:
    """Run the bare WSGI function under the same gunicorn; yields its URL, with a path a body."""
    files = bench.folder / "floor"
    files.mkdir(exist_ok=True)
    for name, body in bodies.items():
        (files / name).write_bytes(body)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*GUNICORN, "-b", f"127.0.0.1:{port}", "benchmarks.floor:application"]
    env = {**bench.env, "FLOOR_DIR": str(files)}
    log = bench.folder / "floor.log"
    with running(command, env=env, log=log, answers=f"{url}/{next(iter(bodies))}"):
        yield url
