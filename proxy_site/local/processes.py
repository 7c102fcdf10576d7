"""The child processes of one command, of ``make run`` or ``make demo``.

All of them end with their command. A child that ends by itself can be started again (``mend``),
after a pause that doubles while it keeps falling.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

# Seconds.
PATIENCE = 8.0  # from SIGTERM to SIGKILL
FIRST_PAUSE = 1.0  # before a child that fell is started again; doubles with each fall
LONGEST_PAUSE = 30.0
LONG_LIFE = 60.0  # after such a life the pause is the first one again


@dataclass(slots=True)
class Child:
    name: str
    spawn: "Callable[[], subprocess.Popen[bytes]]"
    log: IO[bytes] | None
    process: "subprocess.Popen[bytes]"
    begun: float  # by the monotonic clock
    pause: float = 0.0  # the last one, in seconds
    again_at: float | None = None  # when it is started again; None while it lives

    def fell(self, now: float) -> None:
        lived_long = now - self.begun >= LONG_LIFE
        self.pause = (
            FIRST_PAUSE if lived_long or not self.pause else min(2 * self.pause, LONGEST_PAUSE)
        )
        self.again_at = now + self.pause

    def start_again(self, now: float) -> None:
        # The rest of its session ends first: workers of a gunicorn that was killed hold its port.
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # nothing is left (macOS: EPERM)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process, self.begun, self.again_at = self.spawn(), now, None


class Processes:
    """A context manager of child processes, all of which have ended when it is left."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self,
        name: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> int:
        """Start a child and return its process id; its output goes to ``log``, or to ours."""
        output = log.open("ab") if log else None

        def spawn() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(  # noqa: S603 - our own commands, no shell
                command,
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                # Ctrl-C reaches this process only, which then stops its children in order.
                start_new_session=True,
            )

        child = Child(name, spawn, output, spawn(), time.monotonic())
        self._children.append(child)
        return child.process.pid

    def fallen(self) -> str:
        """Return the name of a child that has ended, and how; "" while all live."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                return f"{child.name} {_end(code)}"
        return ""

    def mend(self) -> list[str]:
        """Start again each child that has ended, after its pause; returns a line for each fall.

        It is called every second or so. The pause is ``FIRST_PAUSE``, doubles with each further
        fall up to ``LONGEST_PAUSE``, and is the first one again after a life of ``LONG_LIFE``.
        """
        lines, now = [], time.monotonic()
        for child in self._children:
            if (code := child.process.poll()) is None:
                continue
            if child.again_at is None:
                child.fell(now)
                lines.append(f"{child.name} {_end(code)}; it starts again in {child.pause:g} s")
            elif now >= child.again_at:
                child.start_again(now)
        return lines

    def stop(self) -> None:
        """Send all SIGTERM, the last started first, and SIGKILL those that don't end in time."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        for child in reversed(self._children):
            try:
                child.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                # The whole session is killed: gunicorn's workers must not outlive their master.
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            if child.log:
                child.log.close()
        self._children.clear()


def _end(code: int) -> str:
    """Say how a process ended, from the value of its ``poll``."""
    if code >= 0:
        return f"ended with status {code}"
    with contextlib.suppress(ValueError):  # a signal without a name
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def stop_on_signals() -> threading.Event:
    """Return an event that is set by SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal)."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, handle)
    return stop


def why_not_listen(host: str, port: int) -> OSError | None:
    """Return what the system says against listening there; None when it is possible."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
        return None


def free_port(wanted: int, taken: set[int]) -> int:
    """Return ``wanted``, or the next port that is free and not ``taken``."""
    everywhere = "0.0.0.0"  # noqa: S104 - asked for a moment, not listened on
    for port in range(wanted, wanted + 200):
        if port not in taken and why_not_listen(everywhere, port) is None:
            return port
    raise SystemExit(f"aipriceaction-proxy: no port from {wanted} to {wanted + 199} is free")
