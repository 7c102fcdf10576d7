"""The store is the market in Redis.

Every bar enters through ``merge`` (trusted), ``lay`` (public) or ``replace_series`` (a history
fetched whole). Each is one atomic step, a script in lua/, that decides by the merge table, stores,
and appends to the change log. The keys share the hash tag {market}; lua/prelude.lua describes them.

The keys' names contain the schema, the version of what they hold: two versions of the code with
different schemas share a server without reading each other's keys. Each has its own market and
leader, and the new one's worker fills its own; only the upstream's request budget is shared.
"""

import datetime as dt
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import redis

from tickers.bar import DAY_SECONDS, Bar, epoch_of
from tickers.market_clock import MarketClock
from tickers.store.records import (
    MAX_SERIES,
    Change,
    Facts,
    Newest,
    Overlay,
    Position,
    State,
    day_in,
)
from tickers.store.revisions import Revisions
from tickers.store.scripts import FencedError as FencedError  # callers find the two here
from tickers.store.scripts import Script
from tickers.store.scripts import StoreError as StoreError
from tickers.suspects import Suspect
from tickers.verdict import Authority, Verdict

SCHEMA = 4  # raised with every change of the keys' content that earlier code would misread
ROOT = f"{{market}}:{SCHEMA}"
NODE_ID = "{market}:node_id"  # without a schema: the id is the same for all versions of the code
MAX_BARS = 3_000  # bars that one call of merge takes, because of Lua's C stack

# Symbols that are read in one step; with 5,000 bars each it blocks the server for 20 ms.
SERIES_A_READ = 10

_T = TypeVar("_T")
_LUA = Path(__file__).with_name("lua")


def market_script(client: "redis.Redis", *files: Path) -> Script:
    """Return a script on the market's keys: lua/prelude.lua, then these files."""
    return Script(client, _LUA / "prelude.lua", *files, key=ROOT)


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge: the position after it, and a verdict for each bar in order."""

    position: Position
    verdicts: list[Verdict]

    @property
    def changed(self) -> int:
        return sum(verdict.changes_market for verdict in self.verdicts)


class Store:
    """The market in Redis, reached by ``client`` (whose answers must be bytes).

    ``history_start`` is the first day of which others' bars are merged; callers cut CORE bars and
    whole series themselves. ``trust_window`` is in seconds, ``log_length`` in entries of the log.
    ``silent_after`` returns how long (seconds) after a complete cycle our own source, if none
    follows, contradicts no peer any more.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        clock: MarketClock,
        trust_window: float,
        max_symbols: int = 3_000,
        history_start: dt.date = dt.date.min,
        log_length: int = 50_000,
        silent_after: Callable[[], float] = lambda: 60.0,
    ) -> None:
        self.client = client
        # redis-py types answers as bytes or str, and can't know that this client returns bytes.
        self._reads: Any = client
        self.clock = clock
        self._window = round(trust_window * 1000)
        self._max_symbols = max_symbols
        self._history_start = epoch_of(history_start)
        self._log_length = log_length
        self._silent_after = silent_after
        self._merging = _own_script(client, "rules", "disputes", "merge")
        self._replacing_series = _own_script(client, "rules", "disputes", "replace_series")
        self._disputing_absent = _own_script(client, "rules", "disputes", "dispute_absent")
        self._completing_cycle = _own_script(client, "complete_cycle")
        self._withdrawing_actors = _own_script(client, "withdraw_actors")
        self._forgetting = _own_script(client, "forget")
        self._leasing = _own_script(client, "lease")
        self._noting = _own_script(client, "note")
        self._noting_fields = _own_script(client, "note_fields")
        self._noting_trading_days = _own_script(client, "note_trading_days")
        self._telling_position = _own_script(client, "rules", "disputes", "position")
        self._reading_series = _own_script(client, "read_series")
        self._reading_facts = _own_script(client, "facts")

    # --- Writing ------------------------------------------------------------------------------

    def merge(
        self,
        bars: Sequence[Bar],
        authority: Authority,
        *,
        fence: str = "",
        age: float = 0,
        peer: str = "",
    ) -> Merged:
        """Merge trusted bars; CORE needs the ``fence`` of the lease it was fetched under.

        A bar of a day on which the exchanges were closed is refused, whoever sent it. ``age`` is
        how many seconds old the data was when it came (a follower's trust window starts that much
        earlier). ``peer`` is the sender of INTERNAL bars, named when they are contradicted (empty:
        nobody is). Raises FencedError, and what redis raises.
        """
        if authority is Authority.PUBLIC:
            raise ValueError("public bars are laid over trusted ones: use lay")
        # Others' bars from before the history are left to the script, which refuses them as such.
        first = None if authority is Authority.CORE else _first_day(self._history_start)
        closed = {
            at
            for at, bar in enumerate(bars)
            if self._is_closed(bar.day) and (first is None or bar.day >= first)
        }
        if closed:
            open_days = [bar for at, bar in enumerate(bars) if at not in closed]
            merged = self.merge(open_days, authority, fence=fence, age=age)
            told = iter(merged.verdicts)
            all_verdicts = [
                Verdict.CLOSED_DAY if at in closed else next(told) for at in range(len(bars))
            ]
            return Merged(merged.position, all_verdicts)
        position = Position("", 0)
        verdicts: list[Verdict] = []
        for part in _parts(bars, MAX_BARS):
            merged = self._merge(part, authority, fence=fence, age=age, actor=peer)
            position = merged.position
            verdicts += merged.verdicts
        return Merged(position, verdicts)

    def _is_closed(self, day: dt.date) -> bool:
        """Return whether the exchanges were closed on a past day; merge refuses future days."""
        return not self.clock.calendar.is_trading_day(day) and day <= self.clock.today()

    def lay(
        self,
        bars: Sequence[tuple[Bar, str]],
        *,
        actor: str,
        late_after: float | None,
        network: str = "",
        before: Sequence[bytes | None] = (),
    ) -> Merged:
        """Lay public bars, each with the anchor it was judged against, over the trusted ones.

        ``before`` has for each bar the encoded trusted bar before the newest, by which it was
        judged as well (None: there was none); empty: no bar was judged by it.
        ``late_after``: a bar is served only where the trusted bar hasn't changed, and no whole
        cycle has confirmed it, for that many seconds (0: always; None: never served, only judged).
        ``network`` is the actor's (empty: no second sender is needed). A bar that would be served
        is HELD until an actor of another network sends one whose prices all lie within 0.5 % of its
        own and whose volume is at most twice its own; that second bar is then laid.
        A symbol's overlay changes at most ten times in any minute, whoever sends; further bars are
        JUDGED only. A bar gets ANCHOR_MOVED, and must be judged again, if the bars that it was
        judged by have changed meanwhile.
        """
        return self._merge(
            [bar for bar, _ in bars],
            Authority.PUBLIC,
            actor=actor,
            late_after=late_after,
            network=network,
            judged_by=[
                (anchor, (before[i] or b"") if before else b"-")
                for i, (_, anchor) in enumerate(bars)
            ],
        )

    def _merge(
        self,
        bars: Sequence[Bar],
        authority: Authority,
        *,
        fence: str = "",
        age: float = 0,
        actor: str = "",
        late_after: float | None = None,
        network: str = "",
        judged_by: Sequence[tuple[str, bytes]] = (),
    ) -> Merged:
        header = self._header(authority, fence, age)
        header |= {"history_start": self._history_start, "actor": actor, "network": network}
        if late_after is not None:
            header["late_after"] = round(late_after * 1000)
        values: list[Any] = []
        for i, bar in enumerate(bars):
            prices = bar.price_texts
            values += (bar.symbol, bar.epoch, _figures(bar, prices), bar.encode(prices))
            if judged_by:
                values += judged_by[i]
        epoch, revision, verdicts = self._merging(header, values)
        return Merged(Position(epoch.decode(), revision), [Verdict(v.decode()) for v in verdicts])

    def replace_series(
        self,
        symbol: str,
        bars: Sequence[Bar],
        authority: Authority,
        *,
        fence: str,
        history_start: int,
        age: float = 0,
        replace_newest: bool = False,
        may_lose: bool = False,
        gone: Collection[dt.date] = (),
    ) -> Verdict:
        """Replace a symbol's series by ``bars`` (sorted by day, one a day), and mark it loaded.

        Stored bars after the answer's last day stay, except those of days that are ``gone``, and
        those that only INTERNAL wrote of days before the trading day. The merge table decides the
        newest day. LOSES_DAYS, unless it ``may_lose`` days: the answer lacks over 2 % of the days
        stored since ``history_start`` (epoch seconds), and nothing was written; days that are
        ``gone`` or that only INTERNAL wrote don't count. CLOSED_DAY: the exchanges were closed on
        all of its days; single closed days are left out. With ``replace_newest`` (the core network
        has said that this series was replaced) ``bars`` replace all that is stored, but for what
        only INTERNAL wrote of the trading day. Raises ValueError for bars that are no series.
        """
        if len(bars) > MAX_SERIES:
            raise ValueError(f"{symbol} has {len(bars)} bars; a series has at most {MAX_SERIES}")
        if any(earlier.day >= later.day for earlier, later in pairwise(bars)):
            raise ValueError(f"{symbol}'s bars aren't sorted by day, one a day")
        today = self.clock.today()
        bars = [bar for bar in bars if bar.day <= today]
        any_came = bool(bars)
        bars = [bar for bar in bars if not self._is_closed(bar.day)]
        if any_came and not bars:
            return Verdict.CLOSED_DAY
        header = self._header(authority, fence, age) | {
            "history_start": history_start,
            "first_date": _first_day(history_start).isoformat(),
            "replaces_newest": replace_newest,
            "may_lose": may_lose,
            "gone": [day.isoformat() for day in gone],
            "trading_date": self.clock.trading_day().isoformat(),
            "symbol": symbol,
        }
        if bars:
            newest = bars[-1]
            header |= {"day": newest.epoch, "figures": _figures(newest, newest.price_texts)}
        told = self._replacing_series(header, [bar.encode() for bar in bars])
        return Verdict(told[2].decode())

    def complete_cycle(
        self, *, fence: str, age: float | None = 0, ends_overlays: bool = False
    ) -> None:
        """Note that a cycle has spoken of every symbol: the market is complete in this epoch.

        ``age`` is as in merge; None leaves the trust window as it is. Raises FencedError.
        """
        header = {
            "fence": fence,
            "new_epoch": _new_epoch(),
            "ends_public": ends_overlays,
            "log_length": self._log_length,
            "silent_after": round(self._silent_after() * 1000),
        }
        if age is not None:
            header["age"] = round(age * 1000)
        self._completing_cycle(header)

    def dispute_absent(self, symbols: Iterable[str], fence: str) -> int:
        """Dispute the trading day's INTERNAL bars of ``symbols``; return how many that opens.

        A whole answer of our own fetch has no bar of today of these symbols although most symbols
        have one. A minute after such an INTERNAL bar was stored it is removed, unless the fetch has
        one by then. Raises FencedError, and what redis raises.
        """
        header = {"fence": fence, "trading_day": epoch_of(self.clock.trading_day())}
        return int(self._disputing_absent(header, symbols))

    def withdraw_actors(self, actors: Iterable[str]) -> int:
        """End the actors' held bars, and the overlays they sent or confirmed; return how many."""
        return int(self._withdrawing_actors({"log_length": self._log_length}, actors))

    def forget(self, symbol: str, *, fence: str = "") -> bool:
        """Remove a symbol from the market, with its series and public bars; log its removal.

        Returns whether it was there. With a ``fence`` it is removed only under that lease, else
        FencedError is raised.
        """
        header = {
            "fence": fence,
            "new_epoch": _new_epoch(),
            "symbol": symbol,
            "log_length": self._log_length,
        }
        return bool(self._forgetting(header))

    def _header(self, authority: Authority, fence: str, age: float) -> dict[str, object]:
        """Return the header fields that merge.lua and replace_series.lua share."""
        return {
            "authority": authority.value,
            "fence": fence,
            "latest_day": epoch_of(self.clock.today()),
            "trading_day": epoch_of(self.clock.trading_day()),
            "new_epoch": _new_epoch(),
            "most_symbols": self._max_symbols,
            "window": self._window,
            "age": round(age * 1000),
            "log_length": self._log_length,
        }

    # --- The lease ----------------------------------------------------------------------------

    def acquire_lease(self, lifetime: float) -> str | None:
        """Acquire the lease and return its fence; return None while another worker holds it."""
        milliseconds = round(lifetime * 1000)
        header = {"action": "acquire", "mine": secrets.token_hex(8), "lifetime": milliseconds}
        fence = self._leasing(header)
        return fence.decode() if fence else None

    def renew_lease(self, fence: str, lifetime: float) -> bool:
        milliseconds = round(lifetime * 1000)
        header = {"action": "renew", "mine": fence, "lifetime": milliseconds}
        return bool(self._leasing(header))

    def release_lease(self, fence: str) -> None:
        self._leasing({"action": "release", "mine": fence})

    def leaders_fence(self) -> str | None:
        """Return the fence of the lease that is held now, by any worker; None: by nobody."""
        fence = self._reads.get(_key("lease"))
        return fence.decode() if fence else None

    def is_led(self) -> bool:
        """Return whether a worker has held the lease within the last half minute."""
        return bool(self._reads.exists(_key("led"), _key("lease")))

    # --- Reading ------------------------------------------------------------------------------

    def state(self) -> State:
        """Return the store's state; overlays whose time is over are ended first."""
        return self._told(self._telling_position(self._position_header()))

    def _told(self, told: Sequence[Any]) -> State:
        """Read the state, and teach this process's clock the trading days that it names."""
        state = State.parse(told)
        self.clock.calendar.shown.update(state.trading_days)
        return state

    def changes_since(self, since: Position) -> tuple[State, list[Change] | None]:
        """Return the store's state, and the changes after ``since`` until then, oldest first.

        The changes are None when the log doesn't reach back to ``since``, or is of another epoch.
        """
        header = self._position_header() | {"of_epoch": since.epoch, "after": since.revision}
        *told, entries = self._telling_position(header)
        state = self._told(told)
        if entries is None:
            return state, None
        return state, [Change.parse(entry_id, {what: said}) for entry_id, (what, said) in entries]

    def _position_header(self) -> dict[str, object]:
        return {
            "new_epoch": _new_epoch(),
            "trading_day": epoch_of(self.clock.trading_day()),
            "window": self._window,
            "log_length": self._log_length,
        }

    def symbols(self) -> list[str]:
        return sorted(symbol.decode() for symbol in self._reads.hkeys(_key("last")))

    def newest(self, symbols: Iterable[str] | None = None) -> dict[str, Newest]:
        """Return the newest trusted bar of each symbol that has one; by default of all."""
        if symbols is None:
            found = {k.decode(): v for k, v in self._reads.hgetall(_key("last")).items()}
        else:
            found = self._fields("last", symbols)
        return {symbol: Newest.parse(text) for symbol, text in found.items()}

    def overlays(self, symbols: Iterable[str] | None = None) -> dict[str, Overlay]:
        if symbols is None:
            found = {k.decode(): v for k, v in self._reads.hgetall(_key("public")).items()}
        else:
            found = self._fields("public", symbols)
        return {symbol: Overlay.parse(text) for symbol, text in found.items()}

    def public_actors(self) -> set[str]:
        """Return the actors who sent or confirmed an overlay, or have a held bar."""
        held = self._reads.hvals(_key("held"))
        overlays = self.overlays().values()
        return {actor for overlay in overlays for actor in overlay.actors} | {
            entry.split(b" ")[3].decode() for text in held for entry in text.split(b";")[:-1]
        }

    def facts(self, symbols: Iterable[str]) -> dict[str, Facts]:
        """Return the facts by which public bars of these symbols are judged, read in one step."""
        names = list(dict.fromkeys(symbols))
        found = self._reading_facts({}, names) if names else ()
        return {symbol: Facts.parse(told) for symbol, told in zip(names, found, strict=True)}

    def _fields(self, name: str, symbols: Iterable[str]) -> dict[str, bytes]:
        names = list(dict.fromkeys(symbols))
        if not names:
            return {}
        values = self._reads.hmget(_key(name), names)
        return {symbol: value for symbol, value in zip(names, values, strict=True) if value}

    def series(
        self, symbols: Sequence[str], *, last: int = 0
    ) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
        """Yield (symbol, [(day, encoded bar), ...]) of trusted bars, sorted by day.

        ``last`` is how many of the last bars; 0: all.
        """
        return ((symbol, rows) for symbol, rows, *_ in self._read_series(symbols, last))

    def series_with_revisions(
        self, symbols: Sequence[str]
    ) -> Iterator[tuple[str, list[tuple[int, bytes]], Revisions]]:
        """Yield ``series`` with the revisions of the same moment; omit unknown symbols."""
        for symbol, rows, newest, revisions in self._read_series(symbols, 0):
            if newest:
                yield symbol, rows, Revisions.parse(revisions).with_bar(newest.day, newest.revision)

    def _read_series(
        self, symbols: Sequence[str], last: int
    ) -> Iterator[tuple[str, list[tuple[int, bytes]], Newest | None, bytes]]:
        for part in _parts(symbols, SERIES_A_READ):
            found = self._reading_series({"last": last}, part)
            for symbol, (text, revisions, bars) in zip(part, found, strict=True):
                newest = Newest.parse(text) if text else None
                if newest:
                    bars.append(newest.json)
                yield symbol, [(day_in(bar), bar) for bar in bars[-last:]], newest, revisions

    def lengths(self, symbols: Sequence[str]) -> dict[str, int]:
        """Return how many bars each of these symbols has; those without any are left out."""
        newest = self._fields("last", symbols)
        with self._reads.pipeline(transaction=False) as pipeline:
            for symbol in newest:
                pipeline.llen(f"{_key('bars')}:{symbol}")
            return {s: n + 1 for s, n in zip(newest, pipeline.execute(), strict=True)}

    def removed(self) -> dict[str, int]:
        """Return symbol → the revision at which it was removed, without those that came back."""
        return {k.decode(): int(v) for k, v in self._reads.hgetall(_key("removed")).items()}

    def wait_for_change(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for an entry of the log; return whether one came."""
        return bool(self._reads.xread({_key("changes"): "$"}, count=1, block=round(seconds * 1000)))

    def loaded(self) -> dict[str, int]:
        """Return symbol → the history start (epoch seconds) that it was fully loaded from."""
        return {k.decode(): int(v) for k, v in self._reads.hgetall(_key("loaded")).items()}

    def counted_against(self) -> dict[str, dict[str, int]]:
        """Return peer → what → how often within the last 24 hours.

        What: "contradicted" (a dispute about its bar ended for ours) and "impossible" (it sent a
        bar that no market can have).
        """
        seconds, _ = self._reads.time()
        first_hour = int(seconds) // 3_600 - 23
        counts: dict[str, dict[str, int]] = {}
        for field, times in self._reads.hgetall(_key("against")).items():
            hour, peer, what = field.decode().split(" ")
            if int(hour) >= first_hour:
                of_peer = counts.setdefault(peer, {})
                of_peer[what] = of_peer.get(what, 0) + int(times)
        return counts

    def seconds_since_cycle(self) -> float | None:
        """Return how many seconds ago a cycle spoke of every symbol; None: never."""
        return self._seconds_since("cycle_at")

    def seconds_since_fetch(self) -> float | None:
        """Return how many seconds ago our own fetch brought a valid bar; None: never."""
        return self._seconds_since("fetched_at")

    def _seconds_since(self, name: str) -> float | None:
        then = self._reads.get(_key(name))
        if then is None:
            return None
        seconds, microseconds = self._reads.time()
        now = float(seconds) + float(microseconds) / 1e6
        return max(0.0, now - int(then) / 1000)

    def changed(self) -> dict[str, int]:
        """Return symbol → the revision at which our own fetch last changed its newest bar."""
        return {
            symbol.decode(): int(revision)
            for symbol, revision in self._reads.zrange(_key("changed"), 0, -1, withscores=True)
        }

    # --- What a worker keeps here ---------------------------------------------------------------

    def remember_followed(self, place: dict[str, str], *, fence: str) -> None:
        """Keep a follower's positions in its core network beside the bars it has from there.

        Raises FencedError: a position without its bars would make the follower skip them.
        """
        self._noting({"fence": fence, "name": "followed"}, [json.dumps(place)])

    def followed(self) -> dict[str, str]:
        text = self._reads.get(_key("followed"))
        return dict(json.loads(text)) if text else {}

    def remember_batch_size(self, source: str, note: dict[str, int], *, fence: str) -> None:
        """Keep what was learned of an upstream's batch size; raises FencedError."""
        self._noting(
            {"fence": fence, "name": "batch_size"},
            [json.dumps({**self._batch_sizes(), source: note})],
        )

    def batch_size(self, source: str) -> dict[str, int]:
        """Return what was learned of that upstream's batch size; empty: nothing."""
        return dict(self._batch_sizes().get(source, {}))

    def node_id(self) -> str:
        """Return this node's random id, by which it knows bars that come back to it.

        It is the same for all processes, as long as the store isn't emptied.
        """
        self._reads.set(NODE_ID, secrets.token_hex(8), nx=True)
        return str(self._reads.get(NODE_ID).decode())

    def _batch_sizes(self) -> dict[str, dict[str, int]]:
        text = self._reads.get(_key("batch_size"))
        return dict(json.loads(text)) if text else {}

    def write_status(self, status: dict[str, Any], *, fence: str) -> None:
        """Keep the status of the leader's last cycle for /health; raise FencedError."""
        self._noting({"fence": fence, "name": "worker"}, [json.dumps(status)])

    def remember_told_problems(self, note: dict[str, Any], *, fence: str) -> None:
        """Keep which problems the webhook was told of, for the next leader; raise FencedError."""
        self._noting({"fence": fence, "name": "told_problems"}, [json.dumps(note)])

    def told_problems(self) -> dict[str, Any]:
        text = self._reads.get(_key("told_problems"))
        return dict(json.loads(text)) if text else {}

    def write_audit(self, report: dict[str, Any], *, fence: str) -> None:
        """Keep the last audit's report for /health; raise FencedError."""
        self._noting({"fence": fence, "name": "audit"}, [json.dumps(report)])

    def audit(self) -> dict[str, Any]:
        text = self._reads.get(_key("audit"))
        return dict(json.loads(text)) if text else {}

    def status(self) -> dict[str, Any]:
        text = self._reads.get(_key("worker"))
        return dict(json.loads(text)) if text else {}

    # --- What can't be right ----------------------------------------------------------------------

    def now(self) -> int:
        """Return the time by the server's clock, in milliseconds."""
        seconds, microseconds = self._reads.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def suspects(self) -> dict[str, Suspect]:
        return {
            k.decode(): Suspect.parse(v) for k, v in self._reads.hgetall(_key("suspects")).items()
        }

    def note_suspects(self, found: Mapping[str, Suspect | None], *, fence: str) -> None:
        """Keep these suspects (None: the symbol is no longer one). Raises FencedError."""
        self._note_fields(
            "suspects", {s: one.encode() if one else "" for s, one in found.items()}, fence
        )

    def foreign(self, symbol: str) -> set[dt.date]:
        """Return the stored days that only INTERNAL wrote."""
        days = self._reads.smembers(f"{_key('foreign')}:{symbol}")
        return {dt.date.fromisoformat(day.decode()) for day in days}

    def adjusted_at(self) -> dict[str, int]:
        """Return symbol → when closed days of its series were adjusted last, in milliseconds."""
        return {k.decode(): int(v) for k, v in self._reads.hgetall(_key("replaced_at")).items()}

    def note_adjusted(self, symbols: Iterable[str], *, fence: str) -> None:
        """Note that these series were adjusted now. Raises FencedError."""
        now = str(self.now())
        self._note_fields("replaced_at", dict.fromkeys(symbols, now), fence)

    def note_listings(self, exchanges: Mapping[str, str], *, fence: str) -> list[str]:
        """Keep on which exchange each symbol is listed (symbol → exchange), and since which day
        where it was another; returns those that have moved. Raises FencedError."""
        held = {k.decode(): v.decode() for k, v in self._reads.hgetall(_key("listed")).items()}
        before = {symbol: text.split()[0] for symbol, text in held.items()}
        moved = [s for s, exchange in exchanges.items() if before.get(s, exchange) != exchange]
        new = dict.fromkeys(exchanges.keys() - held.keys(), 0)
        since = new | dict.fromkeys(moved, epoch_of(self.clock.today()))
        self._note_fields("listed", {s: f"{exchanges[s]} {day}" for s, day in since.items()}, fence)
        return moved

    def _note_fields(self, name: str, texts: Mapping[str, str], fence: str) -> None:
        for part in _parts(list(texts.items()), MAX_BARS):
            values = [value for pair in part for value in pair]
            self._noting_fields({"fence": fence, "name": name}, values)

    def note_trading_days(self, days: Collection[dt.date], *, fence: str) -> None:
        """Keep days that the market has shown to be trading days; raise FencedError.

        Every process learns them with the store's state.
        """
        if days:
            self._noting_trading_days({"fence": fence}, [day.isoformat() for day in sorted(days)])
            self.clock.calendar.shown.update(days)


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _own_script(client: "redis.Redis", *parts: str) -> Script:
    return market_script(client, *(_LUA / f"{part}.lua" for part in parts))


def _new_epoch() -> str:
    """Return a random epoch, which a script uses if the store needs a new one."""
    return secrets.token_hex(8)


def _figures(bar: Bar, price_texts: tuple[str, str, str, str]) -> str:
    """Return the figures that the merge table decides by, as the scripts keep them."""
    _, high, low, close = price_texts
    return f"{bar.volume} {high} {low} {close}"


def _key(name: str) -> str:
    return f"{ROOT}:{name}"


def _first_day(epoch: int) -> dt.date:
    """Return the first day that begins at ``epoch`` or later."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=-(-epoch // DAY_SECONDS))
