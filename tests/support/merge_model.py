"""The merge table in plain Python: what the store must do, said once more, without Redis.

Bars are kept as they are, and every step's changes are listed as the change log must have them.
"""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tickers.bar import Bar, epoch_of, number, parse
from tickers.store.revisions import Revisions
from tickers.verdict import Authority, Verdict

INTERNAL_STANDS = 60.0  # seconds
SILENT_AFTER = 60.0  # seconds without a complete cycle
LONG_AGO = float("-inf")
MOST_LAID = 10  # of a symbol in a minute


@dataclass
class Newest:
    bar: Bar
    authority: Authority
    stored_at: float


@dataclass
class Laid:
    bar: Bar
    actor: str
    laid_at: float


@dataclass
class Dispute:
    """``displaced``: what CORE or FOLLOWED say of the day, while an INTERNAL bar stands over it;
    ``refused``: once that has returned, the weight that they must reach."""

    day: dt.date
    since: float
    displaced: Newest | None = None
    refused: tuple[int, float] | None = None


Entry = tuple[str, str, bytes]  # what, symbol, encoded bar (empty unless a bar changed)


@dataclass
class MergeModel:
    """``now`` is in seconds and moves only when told to."""

    today: dt.date
    trading_day: dt.date
    max_symbols: int
    trust_window: float
    history_start: dt.date = dt.date.min
    now: float = 0.0
    cycle_at: float | None = None
    revision: int = 0
    series: dict[str, dict[dt.date, Bar]] = field(default_factory=dict)
    newest: dict[str, Newest] = field(default_factory=dict)
    overlays: dict[str, Laid] = field(default_factory=dict)
    laid_at: dict[str, list[float]] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    foreign: dict[str, set[dt.date]] = field(default_factory=dict)
    loaded: dict[str, dt.date] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, Revisions] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)  # of the last step

    # --- Steps ----------------------------------------------------------------------------------

    def merge(self, bars: Sequence[Bar], authority: Authority) -> list[Verdict]:
        self._begin()
        self._expire()
        verdicts = [self._merge(bar, authority) for bar in bars]
        self._end()
        return verdicts

    def replace_series(
        self,
        symbol: str,
        bars: Sequence[Bar],
        authority: Authority,
        *,
        history_start: dt.date,
        replace_newest: bool,
    ) -> Verdict:
        self._begin()
        self._expire()
        bars = [bar for bar in bars if bar.day <= self.today]
        verdict = self._refusal(symbol, bars, authority, history_start)
        if verdict is Verdict.LOSES_DAYS and replace_newest:
            verdict = None  # the core network has judged its own replacement
        if verdict is None:
            self._withdraw(symbol)
            verdict = self._replace(symbol, bars, authority, replace_newest=replace_newest)
            self.loaded[symbol] = history_start
        self._end()
        return verdict

    def lay(self, bars: Sequence[tuple[Bar, str]], *, actor: str, serve: bool) -> list[Verdict]:
        self._begin()
        self._expire()
        verdicts = [self._lay(bar, anchor, actor, serve=serve) for bar, anchor in bars]
        self._end()
        return verdicts

    def complete_cycle(self, *, ends_overlays: bool) -> None:
        self._begin()
        for symbol in list(self.overlays) if ends_overlays else ():
            self._withdraw(symbol)
        self.cycle_at = self.now
        self._end()

    def withdraw_actors(self, actors: Iterable[str]) -> int:
        self._begin()
        banned = [symbol for symbol, laid in self.overlays.items() if laid.actor in set(actors)]
        for symbol in banned:
            self._withdraw(symbol)
        self._end()
        return len(banned)

    def forget(self, symbol: str) -> bool:
        self._begin()
        known = symbol in self.newest
        if known:
            self._withdraw(symbol)
            self._remove(symbol)
            self.disputes.pop(symbol, None)
        self._end()
        return known

    def dispute_absent(self, symbols: Iterable[str]) -> int:
        self._begin()
        opened = 0
        for symbol in symbols:
            newest = self.newest.get(symbol)
            if (
                newest
                and newest.authority is Authority.INTERNAL
                and newest.bar.day == self.trading_day
                and self._dispute(symbol, newest.bar.day) is None
            ):
                self.disputes[symbol] = Dispute(newest.bar.day, newest.stored_at)
                opened += 1
        self._end()
        return opened

    def look(self) -> None:
        self._begin()
        self._expire()
        self._end()

    # --- A trusted bar --------------------------------------------------------------------------

    def _merge(self, bar: Bar, authority: Authority) -> Verdict:
        if bar.day > self.today:
            return Verdict.FUTURE
        if bar.day < self.history_start and authority is not Authority.CORE:
            return Verdict.TOO_OLD
        newest, dispute = self.newest.get(bar.symbol), self._dispute(bar.symbol, bar.day)
        refused = dispute is not None and dispute.refused is not None
        if authority is Authority.INTERNAL and refused and not self._is_source_silent():
            return Verdict.UNCHANGED if newest and newest.bar == bar else Verdict.DISPUTED
        if newest is None:
            if self._is_full(authority):
                return Verdict.FULL
            return self._add(bar, authority, dispute)
        self._withdraw(bar.symbol)
        if bar.day > newest.bar.day:
            return self._add(bar, authority, dispute)
        if bar.day < newest.bar.day:
            return self._merge_history(bar, authority)
        verdict = self._decide(bar, newest, authority)
        self._settle(bar, newest, authority, verdict)
        if verdict in (Verdict.REPLACED, Verdict.CONFIRMED):
            self._take(bar, authority, verdict)
        return verdict

    def _decide(self, bar: Bar, newest: Newest, authority: Authority) -> Verdict:
        """The row of a bar of the newest day stored."""
        if bar == newest.bar:
            rank = [Authority.INTERNAL, Authority.FOLLOWED, Authority.CORE].index
            confirms = rank(authority) > rank(newest.authority)
            return Verdict.CONFIRMED if confirms else Verdict.UNCHANGED
        over_internal = newest.authority is Authority.INTERNAL
        dispute = self._dispute(bar.symbol, bar.day)
        since = dispute.since if dispute else newest.stored_at
        stands = self.now - since < INTERNAL_STANDS
        if authority is Authority.CORE:
            may_be_late = over_internal and newest.bar.volume > bar.volume and stands
            return Verdict.KEPT if may_be_late else Verdict.REPLACED
        if weight(bar) > weight(newest.bar):
            return Verdict.REPLACED
        contradicts = over_internal and authority is Authority.FOLLOWED and not stands
        return Verdict.REPLACED if contradicts else Verdict.KEPT

    def _add(self, bar: Bar, authority: Authority, dispute: Dispute | None) -> Verdict:
        """A bar of a new day; what stood in dispute until then is given back first."""
        newest = self.newest.get(bar.symbol)
        before = self._dispute(bar.symbol, newest.bar.day) if newest else None
        if before and before.refused is None:
            self._give_back(bar.symbol)
        if authority is Authority.INTERNAL:
            self.foreign.setdefault(bar.symbol, set()).add(bar.day)
        if dispute is None or weight(bar) >= (dispute.refused or (0, 0)):
            self.disputes.pop(bar.symbol, None)
        return self._take(bar, authority, Verdict.ADDED)

    # --- Disputes -------------------------------------------------------------------------------

    def _is_source_silent(self) -> bool:
        return self.cycle_at is None or self.now - self.cycle_at > SILENT_AFTER

    def _dispute(self, symbol: str, day: dt.date) -> Dispute | None:
        dispute = self.disputes.get(symbol)
        return dispute if dispute and dispute.day == day else None

    def _settle(self, bar: Bar, newest: Newest, authority: Authority, verdict: Verdict) -> None:
        symbol, dispute = bar.symbol, self._dispute(bar.symbol, bar.day)
        said = Newest(bar, authority, self.now)
        if authority is Authority.INTERNAL:
            if verdict is Verdict.REPLACED and newest.authority is not Authority.INTERNAL:
                self.disputes[symbol] = Dispute(bar.day, self.now, newest)
            return
        if newest.authority is not Authority.INTERNAL:
            if dispute and dispute.refused and weight(bar) >= dispute.refused:
                del self.disputes[symbol]
            return
        self.foreign.get(symbol, set()).discard(bar.day)
        since = dispute.since if dispute else newest.stored_at
        if verdict is Verdict.KEPT:
            displaced = dispute.displaced if dispute else None
            takes = (Verdict.REPLACED, Verdict.CONFIRMED)
            if displaced is None or self._decide(bar, displaced, authority) in takes:
                self.disputes[symbol] = Dispute(bar.day, since, said)
        elif verdict is Verdict.REPLACED and weight(newest.bar) > weight(bar):
            self.disputes[symbol] = Dispute(bar.day, since, refused=weight(newest.bar))
        else:
            self.disputes.pop(symbol, None)

    def _give_back(self, symbol: str) -> None:
        dispute, internal = self.disputes[symbol], self.newest[symbol].bar
        self.disputes[symbol] = Dispute(dispute.day, dispute.since, refused=weight(internal))
        self._withdraw(symbol)
        displaced = dispute.displaced
        if displaced is None:
            self._take_back(symbol, dispute.day)
            return
        self.newest[symbol] = displaced
        self.series[symbol][dispute.day] = displaced.bar
        self.entries.append(("replaced", symbol, b""))
        if displaced.authority is Authority.CORE:
            self.changed[symbol] = self.revision + 1

    def _take_back(self, symbol: str, day: dt.date) -> None:
        """The day that only INTERNAL has goes."""
        foreign = self.foreign.get(symbol, set())
        foreign.discard(day)
        del self.series[symbol][day]
        if not self.series[symbol]:
            self._remove(symbol)
            return
        before = max(self.series[symbol])
        authority = Authority.INTERNAL if before in foreign else Authority.CORE
        self.newest[symbol] = Newest(self.series[symbol][before], authority, LONG_AGO)
        self.entries.append(("replaced", symbol, b""))

    def _remove(self, symbol: str) -> None:
        self._withdraw(symbol)
        for of_symbol in (
            self.series,
            self.newest,
            self.loaded,
            self.changed,
            self.laid_at,
            self.foreign,
        ):
            of_symbol.pop(symbol, None)
        self.entries.append(("removed", symbol, b""))

    def _merge_history(self, bar: Bar, authority: Authority) -> Verdict:
        stored = self.series[bar.symbol].get(bar.day)
        foreign = self.foreign.setdefault(bar.symbol, set())
        if stored == bar:
            if authority is not Authority.INTERNAL:
                foreign.discard(bar.day)
            return Verdict.UNCHANGED
        if stored is None:
            if authority is Authority.INTERNAL:
                foreign.add(bar.day)
            self.series[bar.symbol][bar.day] = bar
            self.entries.append((authority, bar.symbol, bar.encode()))
            return Verdict.ADDED
        if authority is not Authority.CORE:
            return Verdict.KEPT
        foreign.discard(bar.day)
        self.series[bar.symbol][bar.day] = bar
        self.entries.append(("replaced", bar.symbol, b""))
        return Verdict.REPLACED

    def _take(self, bar: Bar, authority: Authority, verdict: Verdict) -> Verdict:
        before = self.newest.get(bar.symbol)
        self.newest[bar.symbol] = Newest(bar, authority, self.now)
        self.series.setdefault(bar.symbol, {})[bar.day] = bar
        # A follower would keep its own bar, unless it is told to read the series whole.
        shrinks = verdict is Verdict.REPLACED and before and weight(bar) <= weight(before.bar)
        if shrinks:
            self.entries.append(("replaced", bar.symbol, b""))
        else:
            self.entries.append((authority, bar.symbol, bar.encode()))
        if authority is Authority.CORE:
            self.changed[bar.symbol] = self.revision + 1
        return verdict

    # --- A whole series -------------------------------------------------------------------------

    def _refusal(
        self, symbol: str, bars: Sequence[Bar], authority: Authority, history_start: dt.date
    ) -> Verdict | None:
        if symbol not in self.newest and self._is_full(authority):
            return Verdict.FULL
        if not bars:
            return Verdict.FUTURE
        stored = [
            day
            for day in self.series.get(symbol, {})
            if history_start <= day <= bars[-1].day and day not in self.foreign.get(symbol, ())
        ]
        lost = set(stored) - {bar.day for bar in bars}
        return Verdict.LOSES_DAYS if len(lost) * 50 > len(stored) else None

    def _replace(
        self, symbol: str, bars: Sequence[Bar], authority: Authority, *, replace_newest: bool
    ) -> Verdict:
        stored, newest, last = self.series.get(symbol, {}), self.newest.get(symbol), bars[-1]
        foreign = self.foreign.get(symbol, set())
        after = {
            day: bar
            for day, bar in stored.items()
            if day > last.day
            and (day == self.trading_day if day in foreign else not replace_newest)
        }
        series = {bar.day: bar for bar in bars} | after
        if after:
            decision = Verdict.KEPT
            if newest and newest.bar.day not in after:
                day = max(after)
                of_day = Authority.INTERNAL if day in foreign else authority
                self.newest[symbol] = Newest(after[day], of_day, newest.stored_at)
                if self._dispute(symbol, newest.bar.day):
                    del self.disputes[symbol]
        elif newest is None or newest.bar.day != last.day:
            decision = Verdict.ADDED
            dispute = self.disputes.get(symbol)
            if dispute and (
                dispute.refused is None
                or (dispute.day == last.day and weight(last) >= dispute.refused)
            ):
                del self.disputes[symbol]
        else:
            decision = self._decide(last, newest, authority)
            if decision is Verdict.KEPT and replace_newest:
                decision = Verdict.REPLACED
            self._settle(last, newest, authority, decision)
            if decision is Verdict.KEPT:
                series[last.day] = newest.bar
        foreign.intersection_update(after)
        differs = series != stored
        self.series[symbol] = series
        if decision in (Verdict.ADDED, Verdict.REPLACED, Verdict.CONFIRMED):
            self.newest[symbol] = Newest(last, authority, self.now)
            if authority is Authority.CORE:
                self.changed[symbol] = self.revision + 1
        if differs:
            self.entries.append(("replaced", symbol, b""))
            return Verdict.REPLACED
        if decision is Verdict.CONFIRMED:
            self.entries.append((authority, symbol, last.encode()))
            return decision
        return Verdict.UNCHANGED

    # --- A public bar ---------------------------------------------------------------------------

    def _lay(self, bar: Bar, anchor: str, actor: str, *, serve: bool) -> Verdict:
        newest = self.newest.get(bar.symbol)
        if newest is None:
            return Verdict.UNKNOWN
        if bar.day != self.trading_day or bar.day < newest.bar.day:
            return Verdict.OTHER_DAY
        laid = self.overlays.get(bar.symbol)
        served = laid.bar if laid else newest.bar if newest.bar.day == bar.day else None
        if served and bar.volume < served.volume:
            return Verdict.SMALLER_VOLUME
        if bar == served:
            return Verdict.UNCHANGED
        if anchor != number(newest.bar.close):
            return Verdict.ANCHOR_MOVED
        if not serve:
            return Verdict.JUDGED
        laid_at = self.laid_at.setdefault(bar.symbol, [])
        if sum(self.now - at < 60 for at in laid_at) >= MOST_LAID:
            return Verdict.JUDGED
        laid_at.append(self.now)
        self.overlays[bar.symbol] = Laid(bar, actor, self.now)
        self.entries.append((Authority.PUBLIC, bar.symbol, bar.encode()))
        return Verdict.LAID

    def _withdraw(self, symbol: str) -> None:
        if self.overlays.pop(symbol, None):
            self.entries.append(("withdrawn", symbol, b""))

    def _expire(self) -> None:
        for symbol, laid in list(self.overlays.items()):
            old = self.now - laid.laid_at >= self.trust_window
            if old or laid.bar.day != self.trading_day:
                self._withdraw(symbol)
        if self._is_source_silent():
            return
        for symbol, dispute in list(self.disputes.items()):
            if dispute.refused is None and self.now - dispute.since >= INTERNAL_STANDS:
                self._give_back(symbol)

    # --- Shared ---------------------------------------------------------------------------------

    def _is_full(self, authority: Authority) -> bool:
        return authority is not Authority.CORE and len(self.newest) >= self.max_symbols

    def _begin(self) -> None:
        self.entries = []

    def _end(self) -> None:
        self.revision += bool(self.entries)
        for what, symbol, encoded in self.entries:
            self._revise(what, symbol, encoded)

    def _revise(self, what: str, symbol: str, encoded: bytes) -> None:
        if what in ("withdrawn", Authority.PUBLIC):
            return
        if what == "removed":
            self.revisions.pop(symbol, None)
            self.removed[symbol] = self.revision
            return
        before = self.revisions.get(symbol) or Revisions(self.removed.pop(symbol, 0))
        self.revisions[symbol] = (
            before.with_bar(parse(json.loads(encoded)).epoch, self.revision)
            if encoded
            else before.replaced(self.revision)
        )

    def market(self) -> dict[str, list[tuple[int, bytes]]]:
        """The trusted series as ``Store.series`` reads them."""
        return {
            symbol: [(epoch_of(day), bars[day].encode()) for day in sorted(bars)]
            for symbol, bars in self.series.items()
        }


def weight(bar: Bar) -> tuple[int, float]:
    """What a bar must exceed to win over another of its day."""
    return bar.volume, bar.high - bar.low
