"""The news of problems: what is to be told when one begins, has lasted a day, or ends.

The module is pure logic: it takes what each look found and the time, and a caller tells. Nothing is
queued: news is the difference between what was told and what is, so whoever couldn't be told for an
hour is told how things are now.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LOOKS = 2  # in a row that find a problem, or miss it, until it has begun, or ended
DAY = 86_400.0  # seconds
MOST_KNOWN = 100  # problems at once; further ones aren't told of
MOST_TOLD = 20  # news of each sort at once; the rest follows
LONGEST = 500  # characters of a problem's words


def kind_of(words: str) -> str:
    """Return what makes a problem the same one while its details change: its words before the first
    colon or bracket, numbers aside."""
    return re.sub(r"\d+", "#", re.split(r"[:(]", words, maxsplit=1)[0]).strip()


@dataclass(slots=True)
class Known:
    """A problem that the last looks found, or that was told; times are in epoch seconds."""

    kind: str
    words: str
    since: float
    is_told: bool = False
    days: int = 0  # that it had lasted when that was told last
    looks: int = 0  # in a row that found it, or missed it
    gone_at: float | None = None  # when the first look missed it

    def days_at(self, now: float) -> int:
        return int((now - self.since) // DAY)


@dataclass(slots=True)
class Report:
    """The news of one moment."""

    at: float
    began: list[Known] = field(default_factory=list)
    lasting: list[Known] = field(default_factory=list)
    ended: list[Known] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.began or self.lasting or self.ended)


class News:
    """The problems that are known, and which of them were told; ``told`` is an earlier ``note``."""

    def __init__(self, told: Mapping[str, Any] | None = None) -> None:
        self._known = {
            kind: Known(kind, str(words), float(since), is_told=True, days=int(days))
            for kind, (words, since, days) in (told or {}).items()
        }

    def look(self, problems: Iterable[str], *, now: float) -> None:
        """Take what a look found."""
        found: dict[str, str] = {}
        for words in problems:
            found.setdefault(kind_of(words), words[:LONGEST])
        for kind, known in list(self._known.items()):
            if kind in found:
                known.words = found.pop(kind)
                known.looks = 1 if known.gone_at is not None else known.looks + 1
                known.gone_at = None
            elif not known.is_told:
                del self._known[kind]
            elif known.gone_at is None:
                known.gone_at, known.looks = now, 1
            else:
                known.looks += 1
        for kind, words in found.items():
            if len(self._known) < MOST_KNOWN:
                self._known[kind] = Known(kind, words, since=now, looks=1)

    def report(self, *, now: float) -> Report:
        """Return what is to be told now; it is the same again until it is noted as ``told``."""
        report = Report(now)
        for known in self._known.values():
            if known.gone_at is not None:
                if known.looks >= LOOKS:
                    report.ended.append(known)
            elif not known.is_told:
                if known.looks >= LOOKS:
                    report.began.append(known)
            elif known.days_at(now) > known.days:
                report.lasting.append(known)
        for news in (report.began, report.lasting, report.ended):
            del news[MOST_TOLD:]
        return report

    def told(self, report: Report) -> None:
        for known in report.began:
            known.is_told, known.days = True, known.days_at(report.at)
        for known in report.lasting:
            known.days = known.days_at(report.at)
        for known in report.ended:
            self._known.pop(known.kind, None)

    def note(self) -> dict[str, Any]:
        """Return what was told, for whoever goes on with it."""
        return {
            kind: [known.words, known.since, known.days]
            for kind, known in self._known.items()
            if known.is_told
        }
