"""The addresses that trusted bars come from: which one is asked, and when again after it failed.

Pure logic: it takes times and says what follows; the worker asks. A backoff is its address's own,
so a dead one costs a live one nothing: the one that answers stays the first to be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LONGEST_BACKOFF = 60.0  # seconds between two requests to an address that fails
TOGETHER = 1.0  # seconds: those whose times lie no further apart are asked in one cycle

_Source = TypeVar("_Source")


def backoff(failures: int, *, interval: float) -> float:
    """Seconds until what has failed so often in a row is tried again: the pace's ``interval``,
    doubled with each failure."""
    doubled = min(max(interval, 1.0) * 2.0 ** min(failures, 10), LONGEST_BACKOFF)
    return max(interval, doubled)


@dataclass(slots=True, eq=False)
class Address(Generic[_Source]):
    """``not_before`` in seconds of the monotonic clock that ``Addresses`` is told."""

    source: _Source
    failures: int = 0  # in a row
    not_before: float = float("-inf")


class Addresses(Generic[_Source]):
    def __init__(self, sources: Sequence[_Source]) -> None:
        self._addresses = [Address(source) for source in sources]

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def failing(self) -> int:
        """How many failed when they were asked last."""
        return sum(address.failures > 0 for address in self._addresses)

    @property
    def due_at(self) -> float:
        """When the first may be asked."""
        return min(address.not_before for address in self._addresses)

    def to_ask(self, now: float) -> list[Address[_Source]]:
        """Those that may be asked, the one that answered last before all others; when none may, the
        one whose time comes first: whoever asks has waited long enough."""
        due = [address for address in self._addresses if address.not_before <= now + TOGETHER]
        return due or [min(self._addresses, key=lambda address: address.not_before)]

    def answered(self, address: Address[_Source]) -> None:
        address.failures, address.not_before = 0, float("-inf")
        self._addresses.remove(address)
        self._addresses.insert(0, address)

    def failed(self, address: Address[_Source], *, now: float, pause: float) -> None:
        """``pause``: seconds until it may be asked again."""
        address.failures += 1
        address.not_before = now + pause
