"""A suspect is a symbol of which a trusted source says what can't be right.

A source that multiplies a price by a thousand, swaps two series, or adjusts the whole market at
once is wrong, whoever it is. Its answer isn't taken yet, and the symbol's last good series is
served. A price beyond ten times the last close is taken by an operator only. Anything else is taken
when two equal full answers come ten minutes apart: a real event lasts, a fault seldom does.

An ordinary adjustment (a dividend, a bonus issue, a split) multiplies all days before its ex-date
by one factor: between two ex-dates the factors of closed days are constant. That is taken at once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import median

from tickers.bar import Bar, parse

BEYOND = 10.0  # times the last close, or a tenth of it; exactly ten is a split
APART = 600.0  # seconds between two full answers that confirm each other
HOUR = 3_600.0  # seconds for which a replaced series isn't replaced again without a second answer
FEW = 10  # symbols that may be adjusted in one cycle, or a tenth of all if that is more

# Two factors are the same within this part of them, or within the rounding of the prices (VND).
STEADY, ROUNDING = 0.005, 10.0
# Prices of single days may be corrected by less than this part: of three days, or a fiftieth of all
# if that is more.
CORRECTED, FEW_DAYS = 0.05, 3
LONG = 3  # days of one factor that show it to be the one between two ex-dates
DAYS_A_LEVEL = 20  # the least average distance of ex-dates, in days


class Reason(StrEnum):
    """The reason why a symbol is a suspect."""

    BEYOND = "a price is more than ten times, or less than a tenth, of the last close"
    UNSTEADY = "closed days moved by factors that aren't constant between ex-dates"
    MANY = "too many symbols were adjusted in one cycle"
    ALTERNATES = "its history was replaced less than an hour ago"

    @property
    def needs_operator(self) -> bool:
        return self is Reason.BEYOND


@dataclass(frozen=True, slots=True)
class Suspect:
    """A suspect as the store keeps it; times are milliseconds of the store's clock.

    ``fingerprint`` is that of the last full answer's days before ``until`` (YYYY-MM-DD).
    ``answered_at`` is when that answer was first given, ``read_at`` when the source was last asked
    for the whole series.
    """

    since: int
    reason: Reason
    fingerprint: str = ""
    until: str = ""
    answered_at: int = 0
    read_at: int = 0

    @classmethod
    def parse(cls, text: bytes) -> "Suspect":
        said = json.loads(text)
        return cls(**{**said, "reason": Reason(said["reason"])})

    def encode(self) -> str:
        return json.dumps(asdict(self))

    def is_due(self, now: int) -> bool:
        """Return whether it is time to ask for the whole series again."""
        return abs(now - self.read_at) >= APART * 1000

    def is_confirmed_by(self, bars: Sequence[Bar], now: int) -> bool:
        """Return whether this full answer equals one that came ten minutes ago or earlier."""
        return (
            bool(self.fingerprint)
            and now - self.answered_at >= APART * 1000
            and fingerprint(bars, self.until) == self.fingerprint
        )

    def after(self, bars: Sequence[Bar], reason: Reason, now: int) -> "Suspect":
        """Return the suspect after another full answer that isn't taken."""
        held = replace(self, reason=reason, read_at=now)
        if self.fingerprint and fingerprint(bars, self.until) == self.fingerprint:
            return held
        until = bars[-1].day.isoformat()
        return replace(held, until=until, fingerprint=fingerprint(bars, until), answered_at=now)


@dataclass(frozen=True, slots=True)
class Finding:
    """The comparison of a full answer with the stored series.

    ``differs``: it isn't what is stored. ``adjusted``: closed days moved by a factor. ``reason``:
    why it can't be right; None: it can.
    """

    differs: bool
    adjusted: bool = False
    reason: Reason | None = None


def fingerprint(bars: Sequence[Bar], until: str) -> str:
    """Return a hash of the days before ``until``; an answer's last day may still change."""
    digest = hashlib.sha256()
    for bar in bars:
        if bar.day.isoformat() < until:
            digest.update(bar.encode())
    return digest.hexdigest()


def is_beyond(bar: Bar, last_close: float) -> bool:
    """Return whether a price is more than ten times, or less than a tenth, of the last close."""
    prices = bar.prices
    return min(prices) < last_close / BEYOND or max(prices) > last_close * BEYOND


def most_adjusted(symbols: int) -> int:
    """Return how many of ``symbols`` symbols one cycle may adjust."""
    return max(FEW, symbols // 10)


def judge(bars: Sequence[Bar], stored: Mapping[int, Bar | bytes], newest: int) -> Finding:
    """Compare a full answer with ``stored`` (day in epoch seconds → bar or encoded bar).

    ``bars`` are sorted by day. ``newest`` is the last stored day, which may have changed after its
    close, so it doesn't count as a closed day. Without stored bars only the answer is judged.
    """
    if len(bars) > 1 and is_beyond(bars[-1], bars[-2].close):
        return Finding(differs=True, reason=Reason.BEYOND)
    days, differs = [], len(bars) != len(stored)
    for bar in bars:
        held = stored.get(bar.epoch)
        if held is None or held in (bar, bar.encode()):
            differs = differs or held is None
            if held is not None and bar.epoch < newest:
                days.append(_Day(1.0, 0.0, _rounding(bar, bar)))
            continue
        differs = True
        if bar.epoch < newest:
            days.append(_Day.of(bar, held if isinstance(held, Bar) else parse(json.loads(held))))
    levels, is_steady = _levels(days)
    adjusted = any(abs(level - 1) > STEADY for level in levels)
    margin = 1 + STEADY  # prices are rounded: exactly ten times may come out as a little more
    beyond = any(not 1 / BEYOND / margin <= level <= BEYOND * margin for level in levels)
    reason = Reason.BEYOND if beyond else None if is_steady else Reason.UNSTEADY
    return Finding(differs, adjusted or not is_steady, reason)


@dataclass(frozen=True, slots=True)
class _Day:
    """The move of a closed day's prices between the stored bar and the answer's.

    ``factor`` is that of its close, ``spread`` how far its other prices' factors are from it, as a
    part of it, and ``tolerance`` the part within which two factors are the same.
    """

    factor: float
    spread: float
    tolerance: float

    @classmethod
    def of(cls, bar: Bar, held: Bar) -> "_Day":
        factors = [new / old for new, old in zip(bar.prices, held.prices, strict=True)]
        factor = bar.close / held.close
        spread = max(abs(other / factor - 1) for other in factors)
        return cls(factor, spread, _rounding(bar, held))

    @property
    def is_even(self) -> bool:
        """Return whether all prices of the day moved alike."""
        return self.spread <= self.tolerance

    def distance(self, level: float) -> float:
        return abs(self.factor / level - 1) + (0.0 if self.is_even else self.spread)

    def is_at(self, level: float) -> bool:
        return self.distance(level) <= self.tolerance


def _rounding(bar: Bar, held: Bar) -> float:
    return STEADY + ROUNDING / max(min(bar.low, held.low), 10 * ROUNDING)


def _levels(days: Sequence[_Day]) -> tuple[list[float], bool]:
    """Return the factors between ex-dates, and whether closed days keep to them."""
    runs = list(_runs(days))
    long = min(LONG, len(days))
    kept = [
        median(day.factor for day in run)
        if run[0].is_even and (len(run) >= long or (run is runs[-1] and run[0].is_at(1.0)))
        else None
        for run in runs
    ]
    levels = [level for level in kept if level is not None]
    changes = sum(abs(after / before - 1) > STEADY for before, after in pairwise(levels))
    if changes > 2 + len(days) // DAYS_A_LEVEL:
        return levels, False
    corrected, in_a_row = 0, 0
    for at, run in enumerate(runs):
        # A day that didn't move (factor 1) is never wrong.
        near = [1.0, *_nearest(kept[:at][::-1]), *_nearest(kept[at:])]
        for day in run:
            distance = min(day.distance(level) for level in near)
            if distance <= day.tolerance:
                in_a_row = 0
                continue
            corrected, in_a_row = corrected + 1, in_a_row + 1
            if distance >= CORRECTED or in_a_row > 1:
                return levels, False
    return levels, corrected <= max(FEW_DAYS, len(days) // 50)


def _nearest(levels: Sequence[float | None]) -> list[float]:
    return [level for level in levels if level is not None][:1]


def _runs(days: Sequence[_Day]) -> Iterator[list[_Day]]:
    """Yield runs of neighbouring days of one factor; an uneven day is a run by itself."""
    run: list[_Day] = []
    for day in days:
        if run and run[0].is_even and day.is_at(run[0].factor):
            run.append(day)
            continue
        if run:
            yield run
        run = [day]
    if run:
        yield run
