"""Following a core network: its market, then what changed in it, merged as FOLLOWED.

A core network may have several addresses, tried in turn by the worker. The position at each is kept
in the store, beside the bars that it names; an address that is new starts from the position read
last, which it knows when it serves the same store. Existing Rust nodes have no ETag and no
/tickers/changes; they are followed by reading the whole market, and in between its last bars.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tickers import bounded_http, bounded_json
from tickers.bar import Bar, BarError, parse
from tickers.bounded_http import Limits, new_session
from tickers.bounded_json import JsonError, Shape
from tickers.clock_skew import ClockSkew, SourceKind
from tickers.cycle_report import CycleReport
from tickers.store.records import Position
from tickers.store.store import Store
from tickers.verdict import Authority, Verdict

logger = logging.getLogger(__name__)

MAX_MARKET = 256_000_000  # bytes: 3,000 symbols of 700 bars each
MAX_ANSWER = 64_000_000  # bytes of any other answer: 50 symbols of 10,000 bars each
SYMBOLS_A_REQUEST = 50
LATEST = "latest"  # the key, beside those of addresses, of the position read last


class FollowError(Exception):
    """The core network didn't answer, or not with a market; the message says what it did."""


@dataclass(frozen=True, slots=True)
class CoreResponse:
    status: int
    body: Any
    etag: str
    age: float  # seconds; 0 when the node doesn't say


class Follower:
    """Follows the node at ``url`` into ``store``; one thread at a time."""

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
        self._session = new_session(trust_env=False)
        self._whole_at: float | None = None
        self._clock_skew = clock_skew or ClockSkew()

    def cycle(self, fence: str, progress: Callable[[int, int], None] | None = None) -> CycleReport:
        """Read what is new and merge it. Raises FollowError, FencedError, and what redis raises.

        ``progress`` is told (done, all) while a whole market is merged.
        """
        cycle = CycleReport()
        position = self._position()
        changes = self._changes(position, fence, cycle) if position else None
        if changes is not None:
            self._merge_changes(changes, fence, cycle)
        elif position is None and self._read_whole_lately():
            self._merge_last_bars(fence, cycle)
        else:
            self._merge_whole(fence, cycle, progress)
        return cycle.finish()

    def contact(self, fence: str) -> CycleReport:
        """A cycle: once the market is read, it is a cheap request by itself."""
        return self.cycle(fence)

    def _read_whole_lately(self) -> bool:
        return (
            self._whole_at is not None
            and self._monotonic() - self._whole_at < self._refresh_interval
        )

    # --- A node of our kind: what changed -----------------------------------------------------

    def _changes(self, position: Position, fence: str, cycle: CycleReport) -> CoreResponse | None:
        """The core network's changes since ``position``; None when it can't tell."""
        answer = self._get("/tickers/changes", {"since": str(position)}, cycle)
        if answer.status in (404, 405, 410):
            logger.info("the core network has no changes since our position; reading it whole")
            self._forget(fence)
            return None
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise FollowError(f"the core network answered {answer.status} to /tickers/changes")
        return answer

    def _merge_changes(self, answer: CoreResponse, fence: str, cycle: CycleReport) -> None:
        position = _position(answer.body.get("position"))
        replaced = [s for s in answer.body.get("replaced") or () if isinstance(s, str)]
        for at in range(0, len(replaced), SYMBOLS_A_REQUEST):
            symbols = replaced[at : at + SYMBOLS_A_REQUEST]
            self._replace(symbols, position, fence, cycle)
        bars = _bars(answer.body.get("bars"), cycle)
        self._merge(bars, fence, answer.age, cycle)
        self._remember(position, fence)
        self._complete(fence, answer.age)

    def _replace(
        self, symbols: Sequence[str], position: Position, fence: str, cycle: CycleReport
    ) -> None:
        """Read whole the series that the core network says it replaced."""
        query = {"symbol": list(symbols), "authority": "trusted", "all": "true"}
        answer = self._get("/tickers", query, cycle)
        current = _position(answer.etag)
        if answer.status != 200 or current.epoch != position.epoch or current < position:
            raise FollowError("the core network's answer is older than what it said before")
        self._replace_series(_market(answer.body), fence, answer.age, cycle, replace_newest=True)

    # --- The whole market ---------------------------------------------------------------------

    def _merge_whole(
        self, fence: str, cycle: CycleReport, progress: Callable[[int, int], None] | None
    ) -> None:
        answer = self._get("/tickers", {"authority": "trusted", "all": "true"}, cycle)
        if answer.status != 200:
            raise FollowError(f"the core network answered {answer.status} to /tickers")
        market = _market(answer.body)
        if not market:
            raise FollowError("the core network has no market yet")
        position = _position(answer.etag) if answer.etag else None
        if position:
            self._refuse_to_go_back(position)
        self._replace_series(market, fence, answer.age, cycle, progress=progress)
        self._whole_at = self._monotonic()
        if position:
            self._remember(position, fence)
        self._complete(fence, answer.age)

    def _merge_last_bars(self, fence: str, cycle: CycleReport) -> None:
        """The cheap contact with a node that has no changes to tell: its last bars."""
        answer = self._get("/tickers", {"limit": "1", "all": "false"}, cycle)
        if answer.status != 200:
            raise FollowError(f"the core network answered {answer.status} to /tickers")
        last = [bars[-1] for bars in _market(answer.body).values() if bars]
        self._merge(_bars(last, cycle), fence, answer.age, cycle)
        self._complete(fence, answer.age)

    def _replace_series(
        self,
        market: dict[str, list[Any]],
        fence: str,
        age: float,
        cycle: CycleReport,
        *,
        replace_newest: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        for done, (symbol, entries) in enumerate(market.items(), 1):
            if self._stop.is_set():
                raise FollowError("stopped while the market was read")
            # A day that stands twice: its last bar counts.
            by_day = {bar.epoch: bar for bar in _bars(entries, cycle) if bar.symbol == symbol}
            bars = [by_day[day] for day in sorted(by_day) if day >= self._history_start]
            if bars:
                verdict = self._store.replace_series(
                    symbol,
                    bars,
                    Authority.FOLLOWED,
                    fence=fence,
                    history_start=self._history_start,
                    age=age,
                    replace_newest=replace_newest,
                )
                self._count(symbol, verdict, len(bars), cycle)
            if progress:
                progress(done, len(market))

    def _count(self, symbol: str, verdict: Verdict, bars: int, cycle: CycleReport) -> None:
        if verdict is Verdict.REPLACED:
            cycle.series_replaced += 1
            cycle.bars_changed += bars
        elif verdict.refused:
            cycle.errors.append(f"{symbol}: the series was refused ({verdict})")

    # --- Merging ------------------------------------------------------------------------------

    def _merge(self, bars: Sequence[Bar], fence: str, age: float, cycle: CycleReport) -> None:
        if bars:
            merged = self._store.merge(bars, Authority.FOLLOWED, fence=fence, age=age)
            cycle.bars_changed += merged.changed

    def _complete(self, fence: str, age: float) -> None:
        """A complete contact speaks of every symbol, so overlays end, changed or not."""
        self._store.complete_cycle(fence=fence, age=age, ends_overlays=True)

    # --- The position in the core network -----------------------------------------------------

    def _position(self) -> Position | None:
        """Where we are at this address; at one that is new, where we are at the last one."""
        held = self._store.followed()
        text = held.get(self._url, held.get(LATEST))
        return Position.parse(text) if text else None

    def _remember(self, position: Position, fence: str) -> None:
        place = {**self._store.followed(), self._url: str(position), LATEST: str(position)}
        self._store.remember_followed(place, fence=fence)

    def _forget(self, fence: str) -> None:
        """This address can't go on from our position; what others told stays true of them."""
        self._whole_at = None
        place = {**self._store.followed(), self._url: ""}
        self._store.remember_followed(place, fence=fence)

    def _refuse_to_go_back(self, position: Position) -> None:
        """Leave an address that lags behind what its store has told before for another one."""
        for text in self._store.followed().values():
            seen = Position.parse(text) if text else None
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
                _age(reply.headers.get("X-Data-Age", "")),
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
    """The bytes that an answer has at most: only the whole market is large."""
    whole = path == "/tickers" and query.get("all") == "true" and "symbol" not in query
    return MAX_MARKET if whole else MAX_ANSWER


def _age(header: str) -> float:
    return float(header) if header.isascii() and header.isdigit() else 0.0


def _position(text: object) -> Position:
    try:
        return Position.parse(str(text))
    except ValueError:
        raise FollowError("the core network didn't say its position") from None


def _market(body: Any) -> dict[str, list[Any]]:
    if not isinstance(body, dict):
        raise FollowError("the core network answered with something else than a market")
    return {s: bars for s, bars in body.items() if isinstance(s, str) and isinstance(bars, list)}


def _bars(entries: Any, cycle: CycleReport) -> list[Bar]:
    """The valid ones; a wrong bar spoils only itself."""
    bars = []
    for entry in entries if isinstance(entries, list) else ():
        cycle.bars_received += 1
        try:
            bars.append(parse(entry if isinstance(entry, dict) else {}))
        except BarError:
            cycle.bars_dropped += 1
    return bars
