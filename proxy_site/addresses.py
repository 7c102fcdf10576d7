"""The addresses of a node's sources decide which one is asked, and when again after it failed.

The module is pure logic: it takes times, and the worker asks. Each address has its own backoff, so
that a dead one doesn't slow a live one: the one that answered last is asked first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LONGEST_BACKOFF = 60.0  # seconds between two requests to an address that fails
TOGETHER = 1.0  # seconds before its time at which an address may already be asked, with others

_Source = TypeVar("_Source")


def backoff(failures: int, *, interval: float) -> float:
    """Return the seconds until a source that failed ``failures`` times in a row is tried again.

    They are the pace's ``interval``, doubled with each failure up to a minute, and never less than
    the interval.
    """
    doubled = min(max(interval, 1.0) * 2.0 ** min(failures, 10), LONGEST_BACKOFF)
    return max(interval, doubled)


@dataclass(slots=True, eq=False)
class Address(Generic[_Source]):
    """One address; ``not_before`` is in seconds of the monotonic clock given to ``Addresses``."""

    source: _Source
    failures: int = 0  # in a row
    not_before: float = float("-inf")


class Addresses(Generic[_Source]):
    """The addresses in the order in which they are asked."""

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._addresses = [Address(source) for source in sources]

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def failing(self) -> int:
        """The number of addresses that failed when they were asked last."""
        return sum(address.failures > 0 for address in self._addresses)

    @property
    def due_at(self) -> float:
        """The time at which the first address may be asked."""
        return min(address.not_before for address in self._addresses)

    def to_ask(self, now: float) -> list[Address[_Source]]:
        """Return the addresses that may be asked, the one that answered last first.

        If none may, it is the one whose time comes first, as the caller has waited long enough.
        """
        due = [address for address in self._addresses if address.not_before <= now + TOGETHER]
        return due or [min(self._addresses, key=lambda address: address.not_before)]

    def answered(self, address: Address[_Source]) -> None:
        address.failures, address.not_before = 0, float("-inf")
        self._addresses.remove(address)
        self._addresses.insert(0, address)

    def failed(self, address: Address[_Source], *, now: float, pause: float) -> None:
        """Note that an address failed; it may be asked again after ``pause`` seconds."""
        address.failures += 1
        address.not_before = now + pause
