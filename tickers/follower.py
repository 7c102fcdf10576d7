"""The follower reads a core network's market, then what changed in it, and merges it as FOLLOWED.

A core network may have several addresses, tried in turn by the worker. The position at each is kept
in the store, beside the bars that it names. A new address starts from the position that was read
last, at another one: it knows that position if it serves the same store.

Older nodes (Rust) have no ETag and no /tickers/changes. The follower reads their whole market, and
in between its latest days. They append strangers' bars behind their own, so a day's first bar is
the trusted one, and the single last bar that they serve by default is never asked for.
"""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tickers import bounded_http, bounded_json
from tickers.bar import Bar
from tickers.bounded_http import Limits, new_session
from tickers.bounded_json import JsonError, Shape
from tickers.clock_skew import ClockSkew, SourceKind
from tickers.core_answers import (
    CoreAnswerError,
    Dropped,
    Market,
    first_of_each_day,
    read_age,
    read_changes,
    read_detail,
    read_market,
    read_position,
)
from tickers.cycle_report import CycleReport
from tickers.intake import Intake, Lacking
from tickers.store.records import Position
from tickers.store.store import Store
from tickers.verdict import Authority, Verdict

logger = logging.getLogger(__name__)

MAX_MARKET = 256_000_000  # bytes: 3,000 symbols of 700 bars each
MAX_ANSWER = 64_000_000  # bytes of any other answer: 50 symbols of 10,000 bars each
SYMBOLS_A_REQUEST = 50
MOST_REMOVED = 0.05  # of the symbols; if more are removed at once, an operator must decide
_SAYS_LATER = frozenset({408, 425, 429})  # statuses about the moment, not about the position
LATEST_DAYS = dt.timedelta(days=14)  # longer than any holiday, so that a trading day is within
MOST_NEWER = 20  # newest bars of a refused series that are merged all the same
LATEST = "latest"  # the key, beside those of addresses, of the position read last


class FollowError(Exception):
    """The core network didn't answer with a market; the message says what it did."""


@dataclass(frozen=True, slots=True)
class CoreResponse:
    status: int
    body: Any
    etag: str
    age: float  # seconds; 0 when the node doesn't say
    detail: str = ""  # what it says of an error

    def refusal(self, path: str) -> FollowError:
        says = f": {self.detail}" if self.detail else ""
        return FollowError(f"the core network answered {self.status} to {path}{says}")


class Follower:
    """The follower of the node at ``url`` merges into ``store``; one thread at a time.

    ``refresh_interval``, ``timeout`` (to connect, to read) and ``total_timeout`` are in seconds;
    ``history_start`` is the first day that is stored, in epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        url: str,
        refresh_interval: float,
        history_start: int,
        stop: threading.Event,
        timeout: tuple[float, float] = (5, 15),
        total_timeout: float = 120,
        monotonic: Callable[[], float] = time.monotonic,
        clock_skew: ClockSkew | None = None,
    ) -> None:
        self._store = store
        self._url = url
        self._refresh_interval = refresh_interval
        self._history_start = history_start
        self._stop = stop
        self._limits = Limits(*timeout, total_timeout, stop_grace=0)
        self._monotonic = monotonic
        self._session = new_session()
        self._whole_at: float | None = None
        self._whole_epoch = ""
        self._clock_skew = clock_skew or ClockSkew()
        self._lacking = Lacking()

    def cycle(self, fence: str, progress: Callable[[int, int], None] | None = None) -> CycleReport:
        """Read what is new and merge it. Raises FollowError, FencedError, and what redis raises.

        ``progress`` is told (done, all) while a whole market is merged.
        """
        cycle = CycleReport()
        intake = self._intake(fence, cycle)
        position = self._position()
        try:
            changes = self._changes(position, fence, cycle) if position else None
            if changes is not None:
                self._merge_changes(changes, fence, intake)
            elif position is None and self._read_whole_lately():
                self._merge_latest_days(fence, intake)
            else:
                self._merge_whole(fence, intake, progress)
        except CoreAnswerError as error:
            raise FollowError(f"the core network {error}") from None
        if intake.shown_days():
            self._forget(fence)  # so that the bars dropped as of a closed day are read again
        return cycle.finish()

    def read_in_full(self, fence: str, symbols: Sequence[str], *, accept: bool = False) -> Intake:
        """Read these series in full now, and take what differs; with ``accept``, take all.

        Returns the intake, which says what became of each. Raises what ``cycle`` raises.
        """
        intake = self._intake(fence, CycleReport(), accepts=accept)
        try:
            for at in range(0, len(symbols), SYMBOLS_A_REQUEST):
                self._replace(symbols[at : at + SYMBOLS_A_REQUEST], None, intake)
            intake.finish()
        except CoreAnswerError as error:
            raise FollowError(f"the core network {error}") from None
        return intake

    def full(self, symbol: str) -> list[Bar]:
        """Return the whole series as the core network has it; raise FollowError."""
        query = {"symbol": [symbol], "authority": "trusted", "all": "true"}
        answer = self._get("/tickers", query, CycleReport())
        if answer.status != 200:
            raise answer.refusal("/tickers")
        try:
            return read_market(answer.body).series.get(symbol, [])
        except CoreAnswerError as error:
            raise FollowError(f"the core network {error}") from None

    def _intake(self, fence: str, cycle: CycleReport, *, accepts: bool = False) -> Intake:
        return Intake(
            self._store,
            Authority.FOLLOWED,
            fence=fence,
            cycle=cycle,
            history_start=self._history_start,
            lacking=self._lacking,
            accepts=accepts,
        )

    def contact(self, fence: str) -> CycleReport:
        """Run a cycle, which is one cheap request once the market is read."""
        return self.cycle(fence)

    def _read_whole_lately(self) -> bool:
        """Whether the store has the market that was read: another life of it may have nothing."""
        return (
            self._whole_at is not None
            and self._monotonic() - self._whole_at < self._refresh_interval
            and self._whole_epoch == self._store.state().position.epoch
        )

    # --- A node of our kind: what changed -----------------------------------------------------

    def _changes(self, position: Position, fence: str, cycle: CycleReport) -> CoreResponse | None:
        """Return the core network's changes since ``position``; None when it can't tell them.

        After any 4xx about the position it is forgotten, or it would be refused for ever.
        """
        answer = self._get("/tickers/changes", {"since": str(position)}, cycle)
        if 400 <= answer.status < 500 and answer.status not in _SAYS_LATER:
            logger.info(
                "the core network answered %d to our position; reading it whole", answer.status
            )
            self._forget(fence)
            return None
        if answer.status != 200:
            raise answer.refusal("/tickers/changes")
        return answer

    def _merge_changes(self, answer: CoreResponse, fence: str, intake: Intake) -> None:
        changes = read_changes(answer.body)
        _count(changes.dropped, len(changes.bars), intake.cycle)
        whole = list(dict.fromkeys([*changes.replaced, *intake.due()]))
        handed: dict[str, list[Bar]] = {}
        for at in range(0, len(whole), SYMBOLS_A_REQUEST):
            handed |= self._replace(whole[at : at + SYMBOLS_A_REQUEST], changes.position, intake)
        intake.finish()
        taken = not (changes.bars or whole)  # an answer without changes confirms the market
        taken |= self._settle(handed, fence, answer.age, intake)
        taken |= self._merge(changes.bars, fence, answer.age, intake)
        if taken:
            self._complete(fence, answer.age)
        if self._remove(changes.removed, fence, intake.cycle):
            self._remember(changes.position, fence)

    def _replace(
        self, symbols: Sequence[str], position: Position | None, intake: Intake
    ) -> dict[str, list[Bar]]:
        """Read whole series, which the core network replaced at ``position`` or before."""
        query = {"symbol": list(symbols), "authority": "trusted", "all": "true"}
        answer = self._get("/tickers", query, intake.cycle)
        if answer.status != 200:
            raise answer.refusal("/tickers")
        if position is not None:
            current = read_position(answer.etag)
            if current.epoch != position.epoch or current < position:
                raise FollowError("the core network's answer is older than what it said before")
        market = read_market(answer.body)
        return self._replace_series(market, answer.age, intake, replace_newest=True)

    def _remove(self, symbols: Sequence[str], fence: str, cycle: CycleReport) -> bool:
        """Remove the symbols that the core network has removed, and return True.

        If they are too many at once nothing is removed, as an operator must look at it first, and
        False is returned.
        """
        held = set(self._store.symbols())
        gone = sorted(held & set(symbols))
        if len(gone) > max(1, MOST_REMOVED * len(held)):
            cycle.errors.append(
                f"the core network has removed {len(gone)} of {len(held)} symbols at once; none is "
                "removed here until you have looked: manage.py history SYMBOL --forget removes one"
            )
            return False
        for symbol in gone:
            self._store.forget(symbol, fence=fence)
        if gone:
            logger.info("removed, as the core network has: %s", ", ".join(gone[:20]))
        return True

    # --- The whole market ---------------------------------------------------------------------

    def _merge_whole(
        self, fence: str, intake: Intake, progress: Callable[[int, int], None] | None
    ) -> None:
        answer = self._get("/tickers", {"authority": "trusted", "all": "true"}, intake.cycle)
        if answer.status != 200:
            raise answer.refusal("/tickers")
        market = read_market(answer.body)
        if not market.series:
            raise FollowError("the core network has no market yet")
        position = read_position(answer.etag) if answer.etag else None
        if position:
            self._refuse_to_go_back(position)
        intake.symbols = len(market.series)
        handed = self._replace_series(market, answer.age, intake, progress=progress)
        intake.finish()
        if not self._settle(handed, fence, answer.age, intake):
            # Nothing was taken, so the data is no fresher, and the position isn't kept.
            intake.cycle.errors += _refusals(intake.refused)
            intake.cycle.bars_received = 0
            return
        self._whole_at = self._monotonic()
        self._whole_epoch = self._store.state().position.epoch
        self._complete(fence, answer.age)
        absent = set(self._store.symbols()) - market.series.keys() if position else ()
        if position and self._remove(sorted(absent), fence, intake.cycle):
            self._remember(position, fence)

    def _merge_latest_days(self, fence: str, intake: Intake) -> None:
        """Merge the latest bars of a node without /tickers/changes, each the first of its day.

        This is its cheap contact. With a start_date older nodes answer with all bars of a day.
        """
        clock = self._store.clock
        since = clock.trading_day() - LATEST_DAYS
        query = {"authority": "trusted", "all": "true", "start_date": since.isoformat()}
        answer = self._get("/tickers", query, intake.cycle)
        if answer.status != 200:
            raise answer.refusal("/tickers")
        market = read_market(answer.body)
        latest = []
        for bars in market.series.values():
            known = [bar for bar in first_of_each_day(bars) if bar.day <= clock.today()]
            latest += known[-1:]
        _count(market.dropped, len(latest), intake.cycle)
        if self._merge(latest, fence, answer.age, intake):
            self._complete(fence, answer.age)

    def _replace_series(
        self,
        market: Market,
        age: float,
        intake: Intake,
        *,
        replace_newest: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, list[Bar]]:
        """Give each series to the intake beside what is stored of it; return their bars."""
        _count(market.dropped, sum(map(len, market.series.values())), intake.cycle)
        loaded = self._store.loaded()
        known = [symbol for symbol in market.series if symbol in loaded]
        stored = self._store.series(known)
        handed: dict[str, list[Bar]] = {}
        for done, (symbol, entries) in enumerate(market.series.items(), 1):
            if self._stop.is_set():
                raise FollowError("stopped while the market was read")
            rows = next(stored)[1] if symbol in loaded else ()
            bars = [bar for bar in first_of_each_day(entries) if bar.epoch >= self._history_start]
            intake.series(symbol, bars, rows, age=age, replace_newest=replace_newest)
            handed[symbol] = bars
            if progress:
                progress(done, len(market.series))
        return handed

    def _settle(self, handed: dict[str, list[Bar]], fence: str, age: float, intake: Intake) -> bool:
        """Merge the newest bars of series that were refused for being shorter than ours.

        Returns whether any of these bars, or any series given to the intake, was taken.
        """
        shorter = [
            bar
            for symbol, verdict in intake.refused.items()
            if verdict is Verdict.LOSES_DAYS
            for bar in handed.get(symbol, ())[-MOST_NEWER:]
        ]
        newer = self._merge(self._newer(shorter), fence, age, intake)
        return newer or not intake.taken.isdisjoint(handed)

    def _newer(self, bars: Sequence[Bar]) -> list[Bar]:
        """Return the bars of their symbol's newest stored day or a later one."""
        stored = self._store.newest({bar.symbol for bar in bars})
        return [bar for bar in bars if bar.symbol in stored and bar.epoch >= stored[bar.symbol].day]

    # --- Merging ------------------------------------------------------------------------------

    def _merge(self, bars: Sequence[Bar], fence: str, age: float, intake: Intake) -> bool:
        """Merge the bars that can be right; return whether any was taken."""
        credible = intake.newest(intake.open_days(bars))
        if not credible:
            return False
        merged = self._store.merge(credible, Authority.FOLLOWED, fence=fence, age=age)
        intake.cycle.bars_changed += merged.changed
        return not all(verdict.refused for verdict in merged.verdicts)

    def _complete(self, fence: str, age: float) -> None:
        """Complete the cycle after a contact of which something was taken.

        A complete contact speaks of every symbol, so that all overlays end, and makes the data as
        fresh as the core network says.
        """
        self._store.complete_cycle(fence=fence, age=age, ends_overlays=True)

    # --- The position in the core network -----------------------------------------------------

    def _position(self) -> Position | None:
        """Return the position at this address; at a new address, the position read last."""
        held = self._store.followed()
        return _kept(held.get(self._url, held.get(LATEST, "")))

    def _remember(self, position: Position, fence: str) -> None:
        place = {**self._store.followed(), self._url: str(position), LATEST: str(position)}
        self._store.remember_followed(place, fence=fence)

    def _forget(self, fence: str) -> None:
        """Forget the position at this address; those at other addresses stay valid."""
        self._whole_at = None
        place = {**self._store.followed(), self._url: ""}
        self._store.remember_followed(place, fence=fence)

    def _refuse_to_go_back(self, position: Position) -> None:
        """Raise FollowError for an address that is behind what its store has told before."""
        for text in self._store.followed().values():
            seen = _kept(text)
            if seen and seen.epoch == position.epoch and seen.revision > position.revision:
                raise FollowError("the core network lags behind what it told before")

    # --- HTTP ---------------------------------------------------------------------------------

    def _get(self, path: str, query: dict[str, Any], cycle: CycleReport) -> CoreResponse:
        cycle.requests += 1
        try:
            reply = bounded_http.ask(
                self._session,
                "GET",
                f"{self._url}{path}",
                params=query,
                limits=replace(self._limits, max_body=_largest(path, query)),
                stop=self._stop,
                examine=Shape().feed,
            )
            self._clock_skew.observe(
                kind=SourceKind.CORE_NETWORK,
                source=self._url,
                date=reply.headers.get("Date"),
                age=reply.headers.get("Age"),
            )
            return CoreResponse(
                reply.status,
                bounded_json.build(reply.body) if reply.status == 200 else None,
                reply.headers.get("ETag", ""),
                read_age(reply.headers.get("X-Data-Age", "")),
                "" if reply.status == 200 else read_detail(reply.body),
            )
        except bounded_http.StoppedError:
            raise FollowError("stopped while the core network answered") from None
        except bounded_http.UnreachableError as error:
            raise FollowError(f"the core network can't be reached: it {error}") from None
        except bounded_http.HttpError as error:
            raise FollowError(f"the core network {error}") from None
        except JsonError as error:
            raise FollowError(
                f"the core network answered with something else than JSON: {error}"
            ) from None


def _largest(path: str, query: dict[str, Any]) -> int:
    """Return the most bytes that an answer may have; only the whole market is large."""
    whole = path == "/tickers" and query.get("all") == "true" and "symbol" not in query
    return MAX_MARKET if whole else MAX_ANSWER


def _kept(text: str) -> Position | None:
    """Return a position that was kept; None for one that no core network can have given out."""
    try:
        return read_position(text) if text else None
    except CoreAnswerError:
        return None


def _refusals(refused: Mapping[str, Verdict]) -> list[str]:
    """Return a line for each reason why series were refused."""
    by_verdict: dict[Verdict, list[str]] = {}
    for symbol, verdict in refused.items():
        by_verdict.setdefault(verdict, []).append(symbol)
    return [
        f"{len(symbols)} series were refused ({verdict}): {', '.join(symbols[:10])}"
        for verdict, symbols in by_verdict.items()
    ]


def _count(dropped: Dropped, bars: int, cycle: CycleReport) -> None:
    cycle.bars_received += bars + dropped.bars
    cycle.bars_dropped += dropped.bars
    cycle.errors += [
        f"the core network's answer has parts that aren't used: {reason} ({times} times)"
        for reason, times in dropped.symbols.items()
    ]
