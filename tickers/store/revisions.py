"""A symbol's revisions say when each of its trusted bars changed last.

Each of the last ten days that changed has a revision of its own, and all other bars share one, the
history's. Every entry of the change log says what changed at a revision. The store's scripts
(lua/prelude.lua) and a process that follows the log apply the same rules to it:

- a bar of a day: that day has this revision;
- an eleventh day: the earliest day becomes history;
- a series replaced: all of it is history, of this revision;
- a day whose revision is not above the history's is history, so an entry that comes again changes
  nothing.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

MOST_DAYS = 10


class Revisions:
    """The revisions of one symbol; an object never changes.

    ``history`` is the revision of all bars but those of ``days``, which are epoch seconds.
    """

    __slots__ = ("_days", "_revisions", "history", "latest")

    def __init__(self, history: int = 0, days: Iterable[tuple[int, int]] = ()) -> None:
        """Make revisions of ``days``: (day, revision), sorted by day."""
        by_day = list(days)
        self.history = history
        self._days = array("q", [day for day, _ in by_day])
        self._revisions = array("q", [revision for _, revision in by_day])
        self.latest = max(self._revisions, default=history)  # the highest of all bars

    @classmethod
    def parse(cls, text: bytes) -> "Revisions":
        """Read the store's ``revisions``: "history day revision day revision ...", latest first.

        The newest day's revision is in ``last`` and must be added (``with_bar``).
        """
        history, *numbers = map(int, text.split())
        return cls(history, list(zip(numbers[::2], numbers[1::2], strict=True))[::-1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Revisions) and self._told() == other._told()

    def __hash__(self) -> int:
        return hash(self._told())

    def __repr__(self) -> str:
        return f"Revisions({self.history}, {list(self.days())})"

    def _told(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        return self.history, tuple(self.days())

    @property
    def size(self) -> int:
        """The bytes that the days and revisions take."""
        return 16 * len(self._days)

    def days(self) -> Iterator[tuple[int, int]]:
        """Yield (day, revision), sorted by day."""
        return zip(self._days, self._revisions, strict=True)

    def with_bar(self, day: int, revision: int) -> "Revisions":
        """Return the revisions after a bar of that day changed at ``revision``."""
        if revision <= self.history:
            return self
        if self._days and self._days[-1] == day:
            return self._with_newest(revision)
        days = list(self.days())
        at = bisect_left(self._days, day)
        if at < len(days) and days[at][0] == day:
            days[at] = day, max(revision, days[at][1])
        else:
            days.insert(at, (day, revision))
        history = self.history
        if len(days) > MOST_DAYS:
            history = max(history, days.pop(0)[1])
            days = [(day, revision) for day, revision in days if revision > history]
        return Revisions(history, days)

    def _with_newest(self, revision: int) -> "Revisions":
        """Return the revisions after the latest day's bar changed, as most changes are."""
        made = Revisions.__new__(Revisions)  # __init__ would cost more than all else here
        made.history, made._days = self.history, self._days
        made._revisions = self._revisions[:]
        made._revisions[-1] = max(revision, self._revisions[-1])
        made.latest = max(revision, self.latest)
        return made

    def replaced(self, revision: int) -> "Revisions":
        """Return the revisions after the whole series was replaced at ``revision``."""
        if revision <= self.history:
            return self
        return Revisions(revision, [(day, at) for day, at in self.days() if at > revision])
