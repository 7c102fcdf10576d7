"""The cycle report: what one cycle of the worker did, for its log line and /health."""

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class CycleReport:
    """The counts of one cycle; ``errors`` are lines for the operator.

    ``upstream`` has the client's counters since its process began; it is empty when following.
    """

    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    requests: int = 0
    bars_received: int = 0
    bars_changed: int = 0
    bars_dropped: int = 0
    series_replaced: int = 0
    symbols_missing: int = 0
    errors: list[str] = field(default_factory=list)
    upstream: dict[str, Any] = field(default_factory=dict)
    duration: float = 0.0  # seconds
    _started: float = field(default_factory=time.monotonic)

    def finish(self) -> "CycleReport":
        self.duration = time.monotonic() - self._started
        return self

    def summary(self) -> str:
        parts = [
            f"{self.bars_changed} of {self.bars_received} bars changed",
            f"{self.requests} requests",
            f"{self.duration:.2f} s",
        ]
        for count, what in (
            (self.series_replaced, "series replaced"),
            (self.bars_dropped, "bars dropped"),
            (self.symbols_missing, "symbols missing"),
            (len(self.errors), "errors"),
        ):
            if count:
                parts.append(f"{count} {what}")
        return ", ".join(parts)
