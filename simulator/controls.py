"""The simulator's controls: a test or an operator changes its behaviour and reads counters here.

The threads that answer share one object. Of HTTP it knows status codes only.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simulator.faults import BodyFault, Fault
from simulator.market import SimulatedMarket, SimulationError

WINDOW = 60.0  # seconds: the sliding window of the request limit
FOREVER = -1


class Controls:
    """The simulator's limits and faults; every method may be called from any thread.

    ``counters`` has requests, refused (and refused_STATUS), symbols_asked, bars_sent, bytes_sent,
    peak_requests_per_minute and fault_NAME for each fault that was served.
    """

    def __init__(
        self,
        market: SimulatedMarket,
        *,
        requests_per_minute: int = 0,
        max_symbols: int = 0,
        latency: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.market = market
        self.counters: Counter[str] = Counter()
        self._requests_per_minute = _limit("requests_per_minute", requests_per_minute)
        self._max_symbols = _limit("max_symbols", max_symbols)
        self._latency = _latency("latency", latency)
        self._dropped: frozenset[str] = frozenset()
        self._fault: Fault | None = None
        self._fault_times = 0
        self._monotonic = monotonic
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def max_symbols(self) -> int:
        """The number of symbols that a request may name; 0: any."""
        return self._max_symbols

    @property
    def dropped(self) -> frozenset[str]:
        """The symbols that answers leave out."""
        return self._dropped

    def fail_with_status(self, status: int, *, times: int = FOREVER) -> None:
        """Answer the next ``times`` requests with this HTTP status; FOREVER: until changed."""
        if not _is_whole(status) or not 400 <= status <= 599:
            raise SimulationError("fault.status must be an HTTP status from 400 to 599")
        self._set_fault(Fault(status=status), times)

    def fail_with_body(self, body: BodyFault, *, times: int = FOREVER) -> None:
        """Spoil the bodies of the next ``times`` answers; FOREVER: until changed."""
        self._set_fault(Fault(body=body), times)

    def clear_fault(self) -> None:
        self._set_fault(None, 0)

    def set_latency(self, seconds: float) -> None:
        self._latency = _latency("latency", seconds)

    def set_limits(
        self, *, requests_per_minute: int | None = None, max_symbols: int | None = None
    ) -> None:
        """Change the limits that are given; 0: no limit."""
        if requests_per_minute is not None:
            self._requests_per_minute = _limit("requests_per_minute", requests_per_minute)
        if max_symbols is not None:
            self._max_symbols = _limit("max_symbols", max_symbols)

    def drop(self, symbols: Iterable[str]) -> None:
        """Leave these symbols, and no others, out of every answer."""
        self._dropped = frozenset(symbols)

    def adjust(self, factors: Mapping[str, float]) -> None:
        """Adjust the history of each symbol by its factor, as SimulatedMarket.adjust does."""
        for symbol, factor in factors.items():
            self.market.adjust(symbol, factor)

    def set_bars(self, bars: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Set or release each symbol's bar of the current day, as SimulatedMarket.set_bar does.

        ``bars`` is {symbol: {"close": price, "volume": shares}}. Either field may be missing; None
        instead of both releases the bar.
        """
        for symbol, fields in bars.items():
            if fields is None:
                self.market.release_bar(symbol)
                continue
            fields = _object(f"set.{symbol}", fields)
            _refuse_unknown(f"set.{symbol}", fields, ("close", "volume"))
            self.market.set_bar(symbol, close=fields.get("close"), volume=fields.get("volume"))

    def obey(self, order: object) -> None:
        """Carry out a decoded order of POST /_control; raises SimulationError.

        Its fields, all optional, are fault ({"status" or "body", "times"}, or null), latency_ms,
        drop, adjust, set, rpm, max_symbols and reset_stats.
        """
        fields = _object("the order", order)
        actions: dict[str, Callable[[Any], None]] = {
            "fault": self._obey_fault,
            "latency_ms": lambda ms: self.set_latency(_latency("latency_ms", ms) / 1000),
            "drop": lambda names: self.drop(_names("drop", names)),
            "adjust": lambda factors: self.adjust(_object("adjust", factors)),
            "set": lambda bars: self.set_bars(_object("set", bars)),
            "rpm": lambda limit: self.set_limits(requests_per_minute=_limit("rpm", limit)),
            "max_symbols": lambda limit: self.set_limits(max_symbols=_limit("max_symbols", limit)),
            "reset_stats": lambda wanted: self.reset_counters() if wanted else None,
        }
        _refuse_unknown("the order", fields, actions)
        for name, value in fields.items():
            actions[name](value)

    def count(self, **amounts: int) -> None:
        with self._lock:
            self.counters.update(amounts)

    def reset_counters(self) -> None:
        with self._lock:
            self.counters.clear()

    def stats(self) -> dict[str, int | str]:
        """Return the counters, the simulation's time (ISO 8601) and the number of symbols."""
        with self._lock:
            counted = dict(self.counters)
        return {
            **counted,
            "clock": self.market.clock().isoformat(),
            "symbols": len(self.market),
        }

    def pause(self, seconds: float | None = None) -> bool:
        """Wait for ``seconds`` (None: the latency); True when the simulator stops meanwhile."""
        return self._stopping.wait(self._latency if seconds is None else seconds)

    def admit(self) -> bool:
        """Count a request in the sliding window; False when there were too many.

        Refused requests count too. The window is of monotonic time, not the simulation's, since the
        limit is on what the client really sends.
        """
        with self._lock:
            now = self._monotonic()
            while self._recent and now - self._recent[0] > WINDOW:
                self._recent.popleft()
            self._recent.append(now)
            asked = len(self._recent)
            self.counters["peak_requests_per_minute"] = max(
                self.counters["peak_requests_per_minute"], asked
            )
            return not self._requests_per_minute or asked <= self._requests_per_minute

    def take_fault(self) -> Fault | None:
        """Return the fault to serve now, and count it down; None: serve none."""
        with self._lock:
            if self._fault is None or self._fault_times == 0:
                return None
            if self._fault_times > 0:
                self._fault_times -= 1
            return self._fault

    def _set_fault(self, fault: Fault | None, times: int) -> None:
        if not _is_whole(times) or times < FOREVER:
            raise SimulationError("fault.times must be a whole number, or -1 for until changed")
        with self._lock:
            self._fault, self._fault_times = fault, times

    def _obey_fault(self, order: object) -> None:
        if not order:
            self.clear_fault()
            return
        fields = _object("fault", order)
        _refuse_unknown("fault", fields, ("status", "body", "times"))
        times = fields.get("times", FOREVER)
        if "status" in fields:
            self.fail_with_status(fields["status"], times=times)
            return
        try:
            body = BodyFault(fields.get("body", ""))
        except ValueError:
            raise SimulationError(
                f"fault needs a status, or a body that is one of {', '.join(BodyFault)}"
            ) from None
        self.fail_with_body(body, times=times)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _limit(name: str, value: int) -> int:
    if not _is_whole(value) or value < 0:
        raise SimulationError(f"{name} must be a whole number, 0 for no limit")
    return value


def _latency(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise SimulationError(f"{name} must be a number of at least 0")
    return float(value)


def _object(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SimulationError(f"{name} must be a JSON object")
    return value


def _names(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise SimulationError(f"{name} must be a list of symbols")
    return value


def _refuse_unknown(name: str, fields: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := sorted(set(fields) - set(known)):
        raise SimulationError(
            f"{name} has no field {', '.join(unknown)}; it may have {', '.join(known)}"
        )
