"""The core fetch is a core node's cycle: it asks the upstream for new bars, merged as CORE.

A symbol's history is fetched in full once. After that a cycle asks only for an overlap: the last
bars, reaching back behind the newest one stored. The overlap shows whether the upstream has
adjusted the history (a dividend, a split), or the node was away for longer than it reaches; then
that symbol is fetched in full again.
"""

import datetime as dt
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tickers import audit
from tickers.bar import Bar, epoch_of
from tickers.cycle_report import CycleReport
from tickers.intake import Intake, Lacking, last_close
from tickers.market_clock import MarketClock
from tickers.snapshot.series import Row, bar_of
from tickers.store.store import Store
from tickers.suspects import APART
from tickers.vci.answer import Answer
from tickers.vci.client import Failure, VciClient
from tickers.vci.errors import RefusedError
from tickers.verdict import Authority

logger = logging.getLogger(__name__)

# Bars that a cycle asks for. The newest stored day may still change after its close (in 24 of 286
# symbols the day's final bar differs from its folded minutes), so days before it are compared.
OVERLAP = 4

# Seconds of open market after which a symbol that no answer had is stale.
UNSEEN = 900.0

# Prices of a closed day that differ by more than this part show an adjustment.
ADJUSTED = 0.001

# countBack counts bars, so asking for each calendar day and some more reaches the history's start.
MARGIN = 10

# Errors of an address that isn't the chart API's.
WRONG_ADDRESS = ("status 404", "status 405", "html")

# Symbols that an error names.
NAMED = 3

# Symbols of a contact. They are more than one, so that a single absent symbol doesn't fail it.
A_FEW = 3


class CoreFetch:
    """The core fetch brings ``symbols`` from the upstream into ``store``; one thread at a time.

    ``on_change`` is called after each merge that changed something, so that delivery needn't wait
    for the cycle's end.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: MarketClock,
        client: VciClient,
        symbols: Sequence[str],
        history_start: dt.date,
        stop: threading.Event,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._client = client
        self._symbols = list(symbols)
        self._history_start = history_start
        self._stop = stop
        self._on_change = on_change
        self._audits = audit.Audits(store, clock)
        self._lacking = Lacking()
        # Symbols whose last full read settled nothing, with its time in milliseconds of the store's
        # clock; symbols with the time at which an answer had a bar of them last, likewise.
        self._unsettled: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._read_all = False
        self._fence = ""
        self._spoilt: frozenset[str] = frozenset()  # symbols in error, in the last cycle
        self._noted: dict[str, int] = {}
        # One thread uses the client, also when a cycle ended before its last answer came.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="fetch")

    @property
    def source(self) -> str:
        """The upstream's name."""
        return self._client.source

    def counts(self) -> dict[str, Any]:
        """Return what was asked and went wrong in the last hour, and the batch size."""
        return {**self._client.counters.last_hour(), "batch_size": self._client.batch_size}

    def cycle(self, fence: str, progress: Callable[[int, int], None] | None = None) -> CycleReport:
        """Fetch and merge every symbol. Raises FencedError, and what redis raises.

        ``progress`` is told (done, all) of the symbols whose whole history is loaded.
        """
        cycle, before = CycleReport(), self._client.counters.requests
        self._recall(fence)
        loaded = self._store.loaded()
        self._forget_those_that_left(loaded, fence)
        intake = self._intake(fence, cycle)
        start = epoch_of(self._history_start)
        held = {symbol for symbol in self._symbols if loaded.get(symbol, start + 1) <= start}
        auditing = self._audits.is_due()
        if auditing or self._read_all:
            whole = list(self._symbols)
        else:
            whole = [s for s in self._symbols if s not in held and self._may_settle(s, intake)]
            known = set(whole)
            fresh = [symbol for symbol in self._symbols if symbol not in known]
            whole += self._update(fresh, intake, fence, cycle)
        self._load(whole, held, intake, cycle, progress)
        self._sum_up(cycle)
        if cycle.bars_received:
            cycle.unseen = self._unseen(held, intake.now)
        # A cycle that brought no bar has spoken of no symbol, and completes nothing.
        if cycle.bars_received and not cycle.errors and not self._stop.is_set():
            self._read_all = bool(intake.shown_days())
            if auditing:
                self._audits.note(intake.audited(whole), fence=fence)
            self._store.complete_cycle(fence=fence, age=None)
            self._dispute_absent(fence, cycle)
        self._spoilt = frozenset(cycle.symbol_errors)
        self._remember(fence)
        return self._finish(cycle, before)

    def read_in_full(self, fence: str, symbols: Sequence[str], *, accept: bool = False) -> Intake:
        """Read these series in full now, and take what differs; with ``accept``, take all.

        Returns the intake, which says what became of each.
        """
        intake = self._intake(fence, CycleReport(), accepts=accept)
        self._load(symbols, set(self._store.loaded()), intake, intake.cycle, None)
        return intake

    def full(self, symbol: str) -> list[Bar]:
        """Return the whole series as the upstream has it; raise UpstreamError."""
        days = (self._clock.today() - self._history_start).days
        answer = self._client.history(
            [symbol], interval="1D", count_back=days + MARGIN, to=self._end()
        )
        bars = answer.series.get(symbol, [])
        return [bar for bar in bars if bar.day >= self._history_start]

    def _intake(self, fence: str, cycle: CycleReport, *, accepts: bool = False) -> Intake:
        return Intake(
            self._store,
            Authority.CORE,
            fence=fence,
            cycle=cycle,
            symbols=len(self._symbols),
            history_start=epoch_of(self._history_start),
            lacking=self._lacking,
            accepts=accepts,
        )

    def _forget_those_that_left(self, loaded: Iterable[str], fence: str) -> None:
        """Remove symbols that were fetched and have left the universe; gossip's symbols stay."""
        for symbol in set(loaded).difference(self._symbols):
            if self._store.forget(symbol, fence=fence):
                logger.warning("%s isn't in the universe any more: it has left the market", symbol)

    def _unseen(self, held: Iterable[str], now: int) -> dict[str, str]:
        """Return the symbols that no answer had for 15 min of open market, and since when."""
        before = {symbol: self._seen.setdefault(symbol, now) for symbol in held}
        if not (self._clock.in_office_hours() and self._clock.in_office_hours(ago=UNSEEN)):
            return {}
        return {
            symbol: dt.datetime.fromtimestamp(seen / 1000, dt.UTC).isoformat(timespec="seconds")
            for symbol, seen in before.items()
            if now - seen > UNSEEN * 1000
        }

    def _note_seen(self, answer: Answer[Bar], now: int) -> None:
        self._seen.update((symbol, now) for symbol, bars in answer.series.items() if bars)

    def _may_settle(self, symbol: str, intake: Intake) -> bool:
        """Return whether a full read can show something that the last one didn't."""
        before = self._unsettled.get(symbol)
        return before is None or abs(intake.now - before) >= APART * 1000

    def _dispute_absent(self, fence: str, cycle: CycleReport) -> None:
        """Dispute peers' bars of today for symbols of which our whole answer has none.

        That is done only while most symbols have a bar of today: before the first trades most have
        none.
        """
        absent = cycle.without_todays - cycle.with_todays
        if len(cycle.with_todays) > len(absent):
            self._store.dispute_absent(sorted(absent), fence)

    def contact(self, fence: str) -> CycleReport:
        """Make one request for a few symbols, which shows the upstream alive and renews trust."""
        cycle, before = CycleReport(), self._client.counters.requests
        silent = self._client.absent | self._client.refused | self._spoilt
        answering = [symbol for symbol in self._symbols if symbol not in silent]
        # A series that should be read in full is left to the next cycle.
        few = min(A_FEW, self._client.batch_size)
        self._update(answering[:few], self._intake(fence, cycle), fence, cycle)
        self._sum_up(cycle)
        return self._finish(cycle, before)

    def _recall(self, fence: str) -> None:
        """Take over the batch size that the last leader learned, once under each lease."""
        if fence != self._fence:
            self._noted = self._store.batch_size(self._client.source)
            self._client.recall(self._noted)
            self._fence = fence

    def _remember(self, fence: str) -> None:
        if (learned := self._client.learned) != self._noted:
            self._store.remember_batch_size(self._client.source, learned, fence=fence)
            self._noted = learned

    def _sum_up(self, cycle: CycleReport) -> None:
        """Name the symbols that were given up; report an error if the cycle brought nothing."""
        for symbol in self._client.refused.intersection(self._symbols):
            told = "the upstream refuses it; it is asked for again later"
            cycle.symbol_errors.setdefault(symbol, told)
        if cycle.bars_received or cycle.errors or self._stop.is_set():
            return
        if cycle.symbol_errors:
            symbol, error = min(cycle.symbol_errors.items())
            cycle.errors.append(f"the upstream brought no usable bar; {symbol}: {error}")
        elif cycle.missing:
            cycle.errors.append(
                f"the upstream brought no usable bar; without any came: {min(cycle.missing)}"
            )

    def _finish(self, cycle: CycleReport, before: int) -> CycleReport:
        cycle.requests = self._client.counters.requests - before
        cycle.upstream = self.counts()
        cycle.least_interval = self._client.least_interval(self._symbols)
        return cycle.finish()

    # --- What is new --------------------------------------------------------------------------

    def _update(
        self, symbols: Sequence[str], intake: Intake, fence: str, cycle: CycleReport
    ) -> list[str]:
        """Merge the overlap of symbols whose history is loaded; return those to load again."""
        again: list[str] = []
        overlap = OVERLAP + self._days_away()
        # Read before the upstream is asked, so that an answer is merged a little sooner. merge
        # itself decides by what is stored by then.
        stored = dict(self._store.series(symbols, last=overlap))
        for answer in self._fetch(symbols, overlap, cycle):
            merging: list[Bar] = []
            self._note_seen(answer, intake.now)
            for symbol, bars in answer.series.items():
                whole, usable = self._compared(symbol, bars, stored[symbol], intake)
                merging += usable
                if whole:
                    again.append(symbol)
            if merging:
                merged = self._store.merge(
                    merging, authority_of(answer), fence=fence, age=answer.age or 0
                )
                cycle.bars_changed += merged.changed
                if merged.changed:
                    self._on_change()
        if again:
            logger.info("adjusted or not reached by the overlap, read in full: %s", again[:20])
        return again

    def _compared(
        self, symbol: str, bars: Sequence[Bar], rows: Sequence[Row], intake: Intake
    ) -> tuple[bool, list[Bar]]:
        """Return what ``compare`` does, for bars that can be right.

        Nothing is merged of a series that has to be read in full, until that has shown what moved.
        """
        bars = intake.open_days(bars)
        whole, usable = compare(bars, rows)
        held = intake.suspects.get(symbol)
        if held and held.fingerprint:
            is_due = held.is_due(intake.now)
            usable = [] if whole or is_due else usable
            return is_due, intake.credible(symbol, usable, bars, last_close(rows))
        if whole:
            return self._may_settle(symbol, intake), []
        if intake.lacks(symbol, bars, rows) and self._may_settle(symbol, intake):
            self._unsettled[symbol] = intake.now
            whole = True
        return whole, intake.credible(symbol, usable, bars, last_close(rows))

    def _days_away(self) -> int:
        """Return the days since the last complete cycle, over which the overlap reaches back."""
        seconds = self._store.seconds_since_cycle()
        return 0 if seconds is None else int(seconds // 86_400)

    # --- The whole history --------------------------------------------------------------------

    def _load(
        self,
        symbols: Sequence[str],
        loaded: Collection[str],
        intake: Intake,
        cycle: CycleReport,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        days = (self._clock.today() - self._history_start).days
        done = 0
        for answer in self._fetch(symbols, days + MARGIN, cycle):
            stored = dict(self._store.series([s for s in answer.series if s in loaded]))
            self._note_seen(answer, intake.now)
            for symbol, bars in answer.series.items():
                since = [bar for bar in bars if bar.day >= self._history_start]
                intake.series(
                    symbol,
                    since,
                    stored.get(symbol, ()),
                    authority=authority_of(answer),
                    age=answer.age or 0,
                )
            self._on_change()
            done += len(answer.series) + len(answer.missing) + len(answer.errors)
            if progress:
                progress(done, len(symbols))
            else:
                logger.info("history: %d of %d symbols", done, len(symbols))
        intake.finish(self._on_change)
        for symbol in intake.refused:
            self._unsettled[symbol] = intake.now

    # --- Asking -------------------------------------------------------------------------------

    def _fetch(
        self, symbols: Sequence[str], count_back: int, cycle: CycleReport
    ) -> Iterator[Answer[Bar]]:
        if not symbols:
            return
        answers = self._client.fetch(symbols, count_back=count_back, to=self._end())
        for answer in self._ahead(answers):
            if isinstance(answer, Failure):
                self._note_failure(answer, cycle)
                continue
            cycle.bars_received += sum(map(len, answer.series.values()))
            today = self._clock.trading_day()
            has = {s for s, bars in answer.series.items() if bars and bars[-1].day >= today}
            cycle.with_todays |= has
            cycle.without_todays |= answer.series.keys() - has
            cycle.bars_dropped += Counter(answer.dropped).total()
            cycle.second_hand = cycle.second_hand or answer.age is not None
            self._note_symbols(answer, cycle)
            yield answer

    def _note_failure(self, failure: Failure, cycle: CycleReport) -> None:
        symbols, error = failure.symbols, failure.error
        reason = f"{error} ({self._client.url})"
        if error.kind in WRONG_ADDRESS:
            reason += "; is VCI_BASE_URL right? The broker's ends in /api/"
        if len(symbols) == 1 and isinstance(error, RefusedError):
            cycle.symbol_errors[symbols[0]] = reason
            return
        named = ", ".join(symbols[:NAMED]) + (", ..." if len(symbols) > NAMED else "")
        cycle.errors.append(f"{len(symbols)} symbols ({named}) weren't fetched: {reason}")

    def _note_symbols(self, answer: Answer[Bar], cycle: CycleReport) -> None:
        """Note which symbols an answer lacks or has wrong.

        Empty columns are an error only of a symbol that has bars.
        """
        having = self._store.newest(answer.empty)
        unlisted = answer.empty - having.keys()
        cycle.missing |= answer.missing | unlisted
        for symbol, error in answer.errors.items():
            if symbol not in unlisted:
                cycle.symbol_errors[symbol] = error

    def _ahead(self, answers: Iterator[Answer[Bar] | Failure]) -> Iterator[Answer[Bar] | Failure]:
        """Yield the same answers; the next is asked for while the caller merges the last."""
        coming = self._asking.submit(next, answers, None)
        while (answer := coming.result()) is not None:
            coming = self._asking.submit(next, answers, None)
            yield answer

    def _end(self) -> dt.datetime:
        """Return the end of the market clock's day, as no later bar can be stored."""
        midnight = dt.datetime.combine(self._clock.today(), dt.time(), dt.UTC)
        return midnight + dt.timedelta(hours=17) - dt.timedelta(seconds=1)


def authority_of(answer: Answer[Bar]) -> Authority:
    """Return FOLLOWED for an answer of another node's door, else CORE."""
    return Authority.CORE if answer.age is None else Authority.FOLLOWED


def compare(bars: Sequence[Bar], stored: Sequence[tuple[int, bytes]]) -> tuple[bool, list[Bar]]:
    """Return whether the series must be read in full, and the bars to merge now.

    ``bars`` are the upstream's last ones, ``stored`` our (day in epoch seconds, encoded bar), both
    sorted by day. A closed day that is stored as it came isn't merged again. Of a series that has
    to be read in full, only bars after the newest stored day and the last bar are merged: closed
    days change all at once or not at all.
    """
    if not bars or not stored:
        return bool(bars), list(bars)
    newest = stored[-1][0]
    if bars[-1].epoch == newest and _closed_days_are(bars, stored):
        return False, [bars[-1]]
    ours = dict(stored)
    # The last bar is always merged: that ends overlays and confirms a peer's bar.
    changed = [
        bar
        for bar in bars
        if bar is bars[-1] or bar.epoch >= newest or ours.get(bar.epoch) != bar.encode()
    ]
    adjusted = any(
        differs(bar, bar_of(ours[bar.epoch]))
        for bar in changed
        if bar.epoch < newest and bar.epoch in ours
    )
    if bars[0].epoch <= newest and not adjusted:
        return False, changed
    return True, [*(bar for bar in bars[:-1] if bar.epoch > newest), *bars[-1:]]


def _closed_days_are(bars: Sequence[Bar], stored: Sequence[Row]) -> bool:
    """Return whether all bars but the last are the stored ones of the same days, as mostly."""
    return [bar.encode() for bar in bars[:-1]] == [row for _, row in stored[-len(bars) : -1]]


def differs(bar: Bar, other: Bar) -> bool:
    return any(abs(a - b) > ADJUSTED * b for a, b in zip(bar.prices, other.prices, strict=True))
