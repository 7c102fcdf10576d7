"""The intake takes into the store what a trusted source says in a cycle, unless it can't be right.

The core fetch and the follower share it. Bars of days on which the exchanges were closed are
dropped and counted. Prices beyond ten times the last close, and histories that can't be right, make
a symbol a suspect (tickers/suspects.py). A stored day that three answers in a row lack is removed.
"""

import datetime as dt
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tickers import audit
from tickers.bar import Bar, day_of
from tickers.cycle_report import CycleReport
from tickers.snapshot.series import Row, close_of
from tickers.store.store import Store
from tickers.suspects import HOUR, Finding, Reason, Suspect, is_beyond, judge, most_adjusted
from tickers.verdict import Authority, Verdict

logger = logging.getLogger(__name__)

LACKED = 3  # answers in a row that must span and lack a stored day for it to go
SHOWN_BY = 10  # symbols, and half of all, that must have a bar to show a trading day


class Lacking:
    """The number of answers in a row that lacked a stored day they span, from cycle to cycle."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[dt.date, int]] = {}

    def note(self, symbol: str, bars: Sequence[Bar], stored: Collection[dt.date]) -> None:
        """Compare an answer of the symbol, sorted by day, with its stored days."""
        if not bars:
            return
        has = {bar.day for bar in bars}
        before = self._counts.pop(symbol, {})
        if not before and has.issuperset(stored):
            return
        first, last = bars[0].day, bars[-1].day
        counts = {day: n for day, n in before.items() if not first <= day <= last}
        for day in stored:
            if first <= day <= last and day not in has:
                counts[day] = before.get(day, 0) + 1
        if counts:
            self._counts[symbol] = counts

    def gone(self, symbol: str) -> set[dt.date]:
        """Return the days that three answers in a row lacked."""
        return {day for day, n in self._counts.get(symbol, {}).items() if n >= LACKED}


class Intake:
    """The intake of one cycle, which is about ``symbols`` symbols in all (0: those stored).

    ``how`` has further arguments of Store.replace_series. With ``accepts``, everything is taken, as
    an operator has looked at it.
    """

    def __init__(
        self,
        store: Store,
        authority: Authority,
        *,
        fence: str,
        cycle: CycleReport,
        symbols: int = 0,
        history_start: int,
        lacking: Lacking | None = None,
        accepts: bool = False,
    ) -> None:
        self._store, self._authority, self._fence = store, authority, fence
        self.cycle, self.symbols, self._history_start = cycle, symbols, history_start
        self._lacking, self._accepts = lacking or Lacking(), accepts
        self._open: set[dt.date] = set()
        self._closed: dict[dt.date, set[str]] = {}
        # Adjusted series wait for the cycle's end, as more than a few of them are no ex-dates.
        self._waiting: dict[str, tuple[list[Bar], dict[str, Any]]] = {}
        self._too_many = False
        self.changed: list[str] = []  # series that were replaced
        self.refused: dict[str, Verdict] = {}
        self.taken: set[str] = set()  # symbols whose series was taken as the source has it

    # These are read when they are needed: an answer that never comes needs no store.

    @functools.cached_property
    def now(self) -> int:
        return self._store.now()

    @functools.cached_property
    def suspects(self) -> dict[str, Suspect]:
        return self._store.suspects()

    @functools.cached_property
    def _adjusted_at(self) -> dict[str, int]:
        return self._store.adjusted_at()

    # --- Bars -----------------------------------------------------------------------------------

    def open_days(self, bars: Sequence[Bar]) -> list[Bar]:
        """Return the bars of days on which the exchanges were open; the others are counted."""
        if self._are_open(bar.day for bar in bars):
            return list(bars)
        calendar, today = self._store.clock.calendar, self._store.clock.today()
        kept = []
        for bar in bars:
            if calendar.is_trading_day(bar.day) or bar.day > today:
                kept.append(bar)
            else:
                self._closed.setdefault(bar.day, set()).add(bar.symbol)
                self.cycle.bars_dropped += 1
        return kept

    def _are_open(self, days: Iterable[dt.date]) -> bool:
        """Return whether the exchanges were open on all of these days.

        The series of a market have the same last days, so those found open are remembered.
        """
        new = set(days) - self._open
        self._open |= {day for day in new if self._store.clock.calendar.is_trading_day(day)}
        return new <= self._open

    def credible(
        self, symbol: str, bars: Sequence[Bar], answer: Sequence[Bar], close: float | None
    ) -> list[Bar]:
        """Return those of a symbol's ``bars`` that aren't beyond ten times the last close.

        A bar that is beyond makes the symbol a suspect. ``close`` is the last stored close. The
        source's own close of the day before, in ``answer``, is a second measure: a bar that agrees
        with it contradicts a peer's bar, not the market.
        """
        kept = [bar for bar in bars if not _is_beyond_both(bar, answer, close)]
        held = self.suspects.get(symbol)
        if len(kept) < len(bars):
            self.cycle.bars_dropped += len(bars) - len(kept)
            if held is None:
                self._keep(symbol, Suspect(self.now, Reason.BEYOND, read_at=self.now))
        elif bars and held and held.reason is Reason.BEYOND and not held.fingerprint:
            self._clear(symbol)
        return kept

    def newest(self, bars: Sequence[Bar]) -> list[Bar]:
        """Return those bars of several symbols, come without histories, that can be right.

        A suspect's bars are dropped until its series has been read in full.
        """
        stored = self._store.newest({bar.symbol for bar in bars})
        by_symbol: dict[str, list[Bar]] = {}
        for bar in sorted(bars, key=lambda bar: bar.day):
            by_symbol.setdefault(bar.symbol, []).append(bar)
        kept: list[Bar] = []
        for symbol, its_bars in by_symbol.items():
            held, last = self.suspects.get(symbol), stored.get(symbol)
            if held and held.fingerprint:
                self.cycle.bars_dropped += len(its_bars)
            elif last is None:
                kept += its_bars
            else:
                late = [bar for bar in its_bars if bar.epoch < last.day]
                new = its_bars[len(late) :]
                kept += [*late, *self.credible(symbol, new, its_bars, float(last.anchor))]
        return kept

    def due(self) -> list[str]:
        """Return the suspects whose series are to be read in full again."""
        return [
            s for s, held in self.suspects.items() if held.fingerprint and held.is_due(self.now)
        ]

    # --- Whole series ---------------------------------------------------------------------------

    def lacks(self, symbol: str, bars: Sequence[Bar], rows: Sequence[Row]) -> bool:
        """Note which of the stored ``rows`` an answer lacks.

        Returns whether the series should be read in full: a day was lacking three times, or a
        stored day is one on which the exchanges were closed.
        """
        days = [day_of(day) for day, _ in rows]
        self._lacking.note(symbol, bars, days)
        return bool(self._lacking.gone(symbol)) or not self._are_open(days)

    def series(self, symbol: str, bars: Sequence[Bar], rows: Sequence[Row], **how: Any) -> None:
        """Judge a full answer by the stored ``rows`` of a loaded series (or none), and take it."""
        kept = self.open_days(bars)
        if not kept:
            return
        days = [day_of(day) for day, _ in rows]
        self._lacking.note(symbol, kept, days)
        how = {**how, "gone": self._gone(symbol, kept[-1].day, days)}
        if self._accepts:
            self._take(symbol, kept, {**how, "may_lose": True})
            return
        finding = self._judge(symbol, kept, rows)
        reason = finding.reason
        if reason is None and finding.adjusted and self._was_adjusted_lately(symbol):
            reason = Reason.ALTERNATES
        if reason is not None:
            self._doubt(symbol, kept, reason, how)
            if not rows and len(kept) > 1:  # of a new series all but the doubtful last bar is good
                self._replace(symbol, kept[:-1], how)
        elif finding.adjusted:
            self._wait(symbol, kept, how)
        elif rows and not how.get("replace_newest") and _only_moves_newest(kept, rows):
            authority, age = how.get("authority", self._authority), how.get("age", 0)
            merged = self._store.merge(kept[-1:], authority, fence=self._fence, age=age)
            self.cycle.bars_changed += merged.changed
            self.taken.add(symbol)
            self._clear(symbol)
        else:
            self._take(symbol, kept, how)

    def _judge(self, symbol: str, bars: Sequence[Bar], rows: Sequence[Row]) -> Finding:
        """Judge a full answer; stored bars that only a peer wrote don't make it a suspect."""
        newest = rows[-1][0] if rows else 0
        finding = judge(bars, dict(rows), newest)
        if finding.reason is None or not rows:
            return finding
        foreign = self._store.foreign(symbol)
        ours = {day: bar for day, bar in rows if day_of(day) not in foreign}
        return judge(bars, ours, newest) if foreign else finding

    def _gone(self, symbol: str, last: dt.date, stored: Sequence[dt.date]) -> set[dt.date]:
        """Return the stored days to be removed: lacking three times, or of closed exchanges."""
        closed = {day for day in stored if not self._store.clock.calendar.is_trading_day(day)}
        later = {day for day in stored if day > last}
        # Closed days after the answer's last day stay while a trading day is stored there too.
        return (closed if later <= closed else closed - later) | self._lacking.gone(symbol)

    def _was_adjusted_lately(self, symbol: str) -> bool:
        return abs(self.now - self._adjusted_at.get(symbol, -(10**15))) < HOUR * 1000

    def _wait(self, symbol: str, bars: list[Bar], how: dict[str, Any]) -> None:
        if self._too_many:
            self._doubt(symbol, bars, Reason.MANY, how)
            return
        self._waiting[symbol] = bars, how
        if len(self._waiting) > most_adjusted(self.symbols or len(self._store.symbols())):
            self._too_many = True
            for waiting, (its_bars, its_how) in self._waiting.items():
                self._doubt(waiting, its_bars, Reason.MANY, its_how)
            self._waiting.clear()

    def _doubt(self, symbol: str, bars: list[Bar], reason: Reason, how: dict[str, Any]) -> None:
        """Make or keep the symbol a suspect; take the series if two equal answers confirm it."""
        held = self.suspects.get(symbol)
        if held and not reason.needs_operator and held.is_confirmed_by(bars, self.now):
            logger.warning("%s: two equal full answers have said the same; it is taken", symbol)
            self._take(symbol, bars, how)
            self._note_adjusted(symbol)
            return
        self._keep(symbol, (held or Suspect(self.now, reason)).after(bars, reason, self.now))

    def _keep(self, symbol: str, suspect: Suspect) -> None:
        if symbol not in self.suspects:
            logger.error(
                "%s is a suspect, its last good series is served: %s", symbol, suspect.reason
            )
        self.suspects[symbol] = suspect
        self._store.note_suspects({symbol: suspect}, fence=self._fence)

    def _clear(self, symbol: str) -> None:
        if self.suspects.pop(symbol, None):
            logger.warning("%s is no suspect any more", symbol)
            self._store.note_suspects({symbol: None}, fence=self._fence)

    def _note_adjusted(self, symbol: str) -> None:
        self._store.note_adjusted([symbol], fence=self._fence)

    def _take(self, symbol: str, bars: list[Bar], how: dict[str, Any]) -> None:
        if not self._replace(symbol, bars, how).refused:
            self.taken.add(symbol)
            self._clear(symbol)

    def _replace(self, symbol: str, bars: list[Bar], how: dict[str, Any]) -> Verdict:
        verdict = self._store.replace_series(
            symbol,
            bars,
            fence=self._fence,
            history_start=self._history_start,
            **{"authority": self._authority, **how},
        )
        if verdict is Verdict.REPLACED:
            self.cycle.series_replaced += 1
            self.cycle.bars_changed += len(bars)
            self.changed.append(symbol)
        elif verdict.refused:
            self.refused[symbol] = verdict
            self.cycle.symbol_errors[symbol] = f"the full history was refused ({verdict})"
        return verdict

    # --- The end --------------------------------------------------------------------------------

    def finish(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Take the adjusted series, which are few enough to be ordinary ex-dates."""
        waiting, self._waiting = self._waiting, {}
        for symbol, (bars, how) in waiting.items():
            self._take(symbol, bars, how)
            self._note_adjusted(symbol)
            on_change()

    def audited(self, symbols: Collection[str]) -> dict[str, Any]:
        """Return the report of an audit of these symbols."""
        return audit.report(
            at=self._store.clock.now(),
            read=len(symbols),
            changed=self.changed,
            suspects=list(self.suspects),
        )

    def shown_days(self) -> set[dt.date]:
        """Return the days that the calendar calls closed and this cycle shows to be trading days.

        Half of the symbols, at least ten, have a bar of such a day. The store remembers them.
        """
        shown = {
            day
            for day, symbols in self._closed.items()
            if len(symbols) >= max(SHOWN_BY, (self.symbols or len(self._store.symbols())) / 2)
        }
        if shown:
            named = ", ".join(map(str, sorted(shown)))
            logger.error("the market traded on days that the calendar calls closed: %s", named)
            self._store.note_trading_days(shown, fence=self._fence)
        return shown


def last_close(rows: Sequence[Row]) -> float | None:
    return close_of(rows[-1][1]) if rows else None


def _only_moves_newest(bars: Sequence[Bar], rows: Sequence[Row]) -> bool:
    """Return whether all closed days are as stored; a new last bar alone replaces no series."""
    past, newest = [encoded for _, encoded in rows], bars[-1]
    if rows[-1][0] == newest.epoch:
        past.pop()
    return [bar.encode() for bar in bars[:-1]] == past


def _is_beyond_both(bar: Bar, answer: Sequence[Bar], close: float | None) -> bool:
    if close is None or not is_beyond(bar, close):
        return False
    before = [other.close for other in answer if other.day < bar.day]
    return not before or is_beyond(bar, before[-1])
