"""Child processes of one command: what `make run` and `make demo` are made of.

All of them end with their command. One that ends by itself can be started again (``mend``), after a
pause that doubles while it keeps falling.
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
LONG_LIFE = 60.0  # a child that lived so long falls as if for the first time


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
        # What is left of its session: the workers of a gunicorn that was killed hold its port.
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # nothing is left (macOS: EPERM)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process, self.begun, self.again_at = self.spawn(), now, None


class Processes:
    """Use as a context manager: whatever was started has ended when it is left."""

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
        """Start a child, and return its id; its output goes to ``log``, or where ours goes."""
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
        """The name of a child that has ended, and how; "" while all live."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                return f"{child.name} {_end(code)}"
        return ""

    def mend(self) -> list[str]:
        """Start again what has ended, each child after its pause; returns a line for each fall.

        To be called every second or so. The pause is ``FIRST_PAUSE``, doubles with each further
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
        """SIGTERM to all, the last started first; SIGKILL to who doesn't leave."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        for child in reversed(self._children):
            try:
                child.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                # Its whole session: gunicorn's workers must not outlive their master.
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            if child.log:
                child.log.close()
        self._children.clear()


def _end(code: int) -> str:
    """How a process ended, by what its ``poll`` says."""
    if code >= 0:
        return f"ended with status {code}"
    with contextlib.suppress(ValueError):  # a signal without a name
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set, and a closed terminal (SIGHUP)."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, handle)
    return stop


def is_free(port: int, host: str = "0.0.0.0") -> bool:  # noqa: S104 - where a node listens
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(wanted: int, taken: set[int]) -> int:
    """``wanted``, or the next port that is free and not ``taken``."""
    for port in range(wanted, wanted + 200):
        if port not in taken and is_free(port):
            return port
    raise SystemExit(f"aipriceaction-proxy: no port from {wanted} to {wanted + 199} is free")
