"""The core node's cycle: ask the upstream for what is new, and merge it as CORE.

A symbol's history is fetched in full once. After that a cycle asks only for an overlap: the last
bars, reaching back behind the newest one stored. The overlap shows when the upstream has adjusted
the history (a dividend, a split) or when the node was away for longer than it reaches; then that
symbol is fetched in full again.
"""

import datetime as dt
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tickers.bar import Bar, epoch_of
from tickers.cycle_report import CycleReport
from tickers.market_clock import MarketClock
from tickers.snapshot.series import bar_of
from tickers.store.store import Store
from tickers.vci.answer import Answer
from tickers.vci.client import Failure, VciClient
from tickers.verdict import Authority, Verdict

logger = logging.getLogger(__name__)

# Bars asked for in a cycle. The newest stored day may still change after its close (in 24 of 286
# symbols the day's final bar differs from its folded minutes), so days before it are compared.
OVERLAP = 4

# An adjustment shows in prices of closed days that differ by more than this.
ADJUSTED = 0.001

# countBack counts bars; asking for every calendar day and some more reaches the history's start.
MARGIN = 10


class CoreFetch:
    """Fetches ``symbols`` from the upstream into ``store``; one thread at a time.

    ``on_change`` is called after each merge that changed something, so that sending need not wait
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
        # Its one thread has the client to itself, also when a cycle ended before its last answer.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="fetch")

    def cycle(self, fence: str, progress: Callable[[int, int], None] | None = None) -> CycleReport:
        """Fetch and merge every symbol. Raises FencedError, and what redis raises.

        ``progress`` is told (done, all) of the symbols whose whole history is loaded.
        """
        cycle, before = CycleReport(), self._client.counters.requests
        loaded = self._store.loaded()
        start = epoch_of(self._history_start)
        fresh = [symbol for symbol in self._symbols if loaded.get(symbol, start + 1) <= start]
        known = set(fresh)
        whole = [symbol for symbol in self._symbols if symbol not in known]
        whole += self._update(fresh, fence, cycle)
        self._load(whole, fence, cycle, progress)
        if not cycle.errors and not self._stop.is_set():
            self._store.complete_cycle(fence=fence, age=None)
            self._dispute_absent(fence, cycle)
        return self._finish(cycle, before)

    def _dispute_absent(self, fence: str, cycle: CycleReport) -> None:
        """A peer's bar of today is in dispute where our whole answer has none although most symbols
        have one: before the first trades most have none."""
        absent = cycle.without_todays - cycle.with_todays
        if len(cycle.with_todays) > len(absent):
            self._store.dispute_absent(sorted(absent), fence)

    def contact(self, fence: str) -> CycleReport:
        """One request for one symbol: shows the upstream alive and refreshes the trust window."""
        cycle, before = CycleReport(), self._client.counters.requests
        silent = self._client.absent | self._client.refused
        answering = [symbol for symbol in self._symbols if symbol not in silent]
        # A series to be read in full is found again by the next cycle.
        self._update(answering[:1], fence, cycle)
        return self._finish(cycle, before)

    def _finish(self, cycle: CycleReport, before: int) -> CycleReport:
        counters = self._client.counters
        cycle.requests = counters.requests - before
        cycle.upstream = {
            "requests": counters.requests,
            "retries": counters.retries,
            "errors": dict(counters.errors),
            "dropped": dict(counters.dropped),
        }
        return cycle.finish()

    # --- What is new --------------------------------------------------------------------------

    def _update(self, symbols: Sequence[str], fence: str, cycle: CycleReport) -> list[str]:
        """Merge the overlap of symbols whose history is loaded; returns those to load again."""
        again: list[str] = []
        overlap = OVERLAP + self._days_away()
        # Read before anything is asked: what came in an answer is merged a little sooner. merge
        # decides by what is stored then.
        stored = dict(self._store.series(symbols, last=overlap))
        for answer in self._fetch(symbols, overlap, cycle):
            merging: list[Bar] = []
            for symbol, bars in answer.series.items():
                whole, usable = compare(bars, stored[symbol])
                merging += usable
                if whole:
                    again.append(symbol)
            if merging:
                merged = self._store.merge(merging, Authority.CORE, fence=fence)
                cycle.bars_changed += merged.changed
                if merged.changed:
                    self._on_change()
        if again:
            logger.info("adjusted or not reached by the overlap, read in full: %s", again[:20])
        return again

    def _days_away(self) -> int:
        """Days since the last complete cycle: the overlap reaches back over them."""
        seconds = self._store.seconds_since_cycle()
        return 0 if seconds is None else int(seconds // 86_400)

    # --- The whole history --------------------------------------------------------------------

    def _load(
        self,
        symbols: Sequence[str],
        fence: str,
        cycle: CycleReport,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        days = (self._clock.today() - self._history_start).days
        done = 0
        for answer in self._fetch(symbols, days + MARGIN, cycle):
            for symbol, bars in answer.series.items():
                self._replace(symbol, bars, fence, cycle)
            self._on_change()
            done += len(answer.series) + len(answer.missing) + len(answer.errors)
            if progress:
                progress(done, len(symbols))
            else:
                logger.info("history: %d of %d symbols", done, len(symbols))

    def _replace(self, symbol: str, bars: Sequence[Bar], fence: str, cycle: CycleReport) -> None:
        bars = [bar for bar in bars if bar.day >= self._history_start]
        if not bars:
            return
        verdict = self._store.replace_series(
            symbol,
            bars,
            Authority.CORE,
            fence=fence,
            history_start=epoch_of(self._history_start),
        )
        if verdict is Verdict.REPLACED:
            cycle.series_replaced += 1
            cycle.bars_changed += len(bars)
        elif verdict.refused:
            cycle.errors.append(f"{symbol}: the full history was refused ({verdict})")

    # --- Asking -------------------------------------------------------------------------------

    def _fetch(
        self, symbols: Sequence[str], count_back: int, cycle: CycleReport
    ) -> Iterator[Answer[Bar]]:
        if not symbols:
            return
        answers = self._client.fetch(symbols, count_back=count_back, to=self._end())
        for answer in self._ahead(answers):
            if isinstance(answer, Failure):
                cycle.errors.append(
                    f"{len(answer.symbols)} symbols weren't fetched: {answer.error}"
                )
                continue
            cycle.bars_received += sum(map(len, answer.series.values()))
            today = self._clock.trading_day()
            has = {s for s, bars in answer.series.items() if bars and bars[-1].day >= today}
            cycle.with_todays |= has
            cycle.without_todays |= answer.series.keys() - has
            cycle.bars_dropped += Counter(answer.dropped).total()
            cycle.symbols_missing += len(answer.missing)
            cycle.errors += answer.errors.values()
            yield answer

    def _ahead(self, answers: Iterator[Answer[Bar] | Failure]) -> Iterator[Answer[Bar] | Failure]:
        """The same; the next one is asked for while the caller merges the last."""
        coming = self._asking.submit(next, answers, None)
        while (answer := coming.result()) is not None:
            coming = self._asking.submit(next, answers, None)
            yield answer

    def _end(self) -> dt.datetime:
        """The end of the market clock's day: nothing later can be stored."""
        midnight = dt.datetime.combine(self._clock.today(), dt.time(), dt.UTC)
        return midnight + dt.timedelta(hours=17) - dt.timedelta(seconds=1)


def compare(bars: Sequence[Bar], stored: Sequence[tuple[int, bytes]]) -> tuple[bool, list[Bar]]:
    """(whether the series must be read in full, the bars to merge now).

    ``bars`` are the upstream's last ones, ``stored`` our (day in epoch seconds, encoded bar), both
    sorted by day. A closed day that is stored as it came isn't merged again. Of a series that has
    to be read in full, only bars from the newest stored day on are: closed days change all at once
    or not at all.
    """
    if not bars or not stored:
        return bool(bars), list(bars)
    newest = stored[-1][0]
    ours = dict(stored)
    # The last one goes along whatever it says: it ends overlays, and confirms a peer's bar.
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


def differs(bar: Bar, other: Bar) -> bool:
    return any(abs(a - b) > ADJUSTED * b for a, b in zip(bar.prices, other.prices, strict=True))
