"""Fixtures of reputation: an SQL database that threads share as processes do, and a clock."""

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection
from django.utils import timezone


def at_once(call: Callable[[], Any], *, threads: int) -> list[Any]:
    """The answers of ``call`` from threads that start together, each with its own connections."""
    start = threading.Barrier(threads)

    def run() -> Any:
        start.wait()
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(threads)]]


class Clock:
    """The wall clock of reputation, which goes on from wherever it is moved to."""

    def __init__(self) -> None:
        self._now = timezone.now
        self._moved = dt.timedelta(0)

    def now(self) -> dt.datetime:
        return self._now() + self._moved

    def move(self, *, hours: float) -> None:
        self._moved += dt.timedelta(hours=hours)
