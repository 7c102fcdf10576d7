"""Child processes that live and die together: what `make run` and `make demo` are made of."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

PATIENCE = 8.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: "subprocess.Popen[bytes]"
    log: IO[bytes] | None


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
        process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            command,
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            # Ctrl-C reaches this process only, which then stops its children in order.
            start_new_session=True,
        )
        self._children.append(Child(name, process, output))
        return process.pid

    def fallen(self) -> str:
        """The name of a child that has ended, and how; "" while all live."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                return f"{child.name} ended with status {code}"
        return ""

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
