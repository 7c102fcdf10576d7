"""The cycle report: what one cycle of the worker did, for its log line and /health."""

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class CycleReport:
    """The counts of one cycle; ``errors`` are lines for the operator.

    ``symbol_errors`` says what is wrong with single symbols, and ``missing`` names those that
    didn't come: they cost the others nothing, so they are no errors of the cycle.
    ``least_interval`` is how many seconds apart two such cycles are at least, for the request
    budget. ``upstream`` has the client's own counts of the last hour; empty when following.
    """

    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    requests: int = 0
    bars_received: int = 0
    bars_changed: int = 0
    bars_dropped: int = 0
    series_replaced: int = 0
    # Symbols whose answer has a bar of the trading day, and those whose answer has none.
    with_todays: set[str] = field(default_factory=set)
    without_todays: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    symbol_errors: dict[str, str] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)  # symbol → since when no answer has it
    missing: set[str] = field(default_factory=set)
    least_interval: float = 0.0
    second_hand: bool = False  # from another node's door
    upstream: dict[str, Any] = field(default_factory=dict)
    duration: float = 0.0  # seconds
    _started: float = field(default_factory=time.monotonic)

    @property
    def symbols_missing(self) -> int:
        return len(self.missing)

    @property
    def brought_nothing(self) -> bool:
        """Whether it failed as a whole: only then is it worth slowing down."""
        return bool(self.errors) and not self.bars_received

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
            (len(self.symbol_errors), "symbols in error"),
            (len(self.errors), "errors"),
        ):
            if count:
                parts.append(f"{count} {what}")
        return ", ".join(parts)
