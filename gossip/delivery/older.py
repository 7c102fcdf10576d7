"""An older node (Rust) among our peers: what its answers and its market tell, and what it may be
sent because of it.

It answers a bar with a plain ``OK``, keeps the first bar of a day, and drops later ones with the
same ``OK``. One that fetches for itself replaces them; one that only gossip reaches is *frozen* at
what it was given first, and is better given nothing of a day before its bars are settled. Its
public door serves a stranger's bar as the last one, and judges the next by that: one that is more
than 10 % from it counts against whoever sends it.

Pure logic: it takes answers, bars and times (seconds of one monotonic clock) and says what follows;
gossip.delivery.watch looks and remembers.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gossip.delivery.peer import PeerKind
from tickers.bar import Bar, day_of
from tickers.market_clock import EXCHANGE_ZONE, MarketClock
from tickers.snapshot.series import bar_of
from tickers.store.records import Newest
from tickers.verdict import Authority

LOOK_EVERY = 3600.0  # seconds between two looks at what a peer serves
FROZEN_AFTER = 600.0  # seconds in which a peer's bar must move, if ours has
KEEPS_UP = 0.9  # of our volume: less has a peer that stopped a while ago
MOST_OFF = 0.10  # the network's rule of a close, of which existing nodes make a failure

SETTLES_AFTER = 900.0  # seconds that a bar hasn't changed, after the close
PUBLIC_UNTIL = dt.time(17, 0)  # at the exchange: no bar of the day after that


@dataclass(frozen=True, slots=True)
class FirstBar:
    """The earliest bar of a day that a peer is known to have, and since when we know it."""

    bar: Bar
    known_at: float


class OlderNode:
    """What is known of one peer; nothing of it holds until it answers as an older node does.

    ``frozen_since`` is when we found it frozen, in epoch milliseconds; None: it isn't. ``unsaved``
    has what a later process must know of it: field → text, None for one that is over.
    """

    def __init__(self, kind: PeerKind) -> None:
        self._is_internal = kind is PeerKind.INTERNAL
        self.is_older = False
        self.frozen_since: int | None = None
        self.looked_at = float("-inf")
        self.unsaved: dict[str, str | None] = {}
        self._has_looked = False
        self._first: dict[str, FirstBar] = {}
        self._closes: dict[str, float] = {}  # that it judges by, as far as we know
        self._refused: set[str] = set()  # symbols, since the last look
        self._settled: dict[str, int] = {}  # symbol → day (epoch seconds) of which it was sent

    def restore(self, fields: Mapping[str, str], *, looked_at: float) -> None:
        """Go on from what an earlier process left in ``unsaved``."""
        self.is_older = "older" in fields
        self.frozen_since = int(fields["frozen"]) if "frozen" in fields else None
        self.looked_at = looked_at
        for field, text in fields.items():
            kind, _, symbol = field.partition(":")
            if kind == "settled":
                self._settled[symbol] = int(text)

    @property
    def is_frozen(self) -> bool:
        return self.frozen_since is not None

    # --- What its answers tell ------------------------------------------------------------------

    def learn(self, *, is_plain_ok: bool) -> bool:
        """It has taken a bar, and said so in this way; returns whether it was thought otherwise."""
        if is_plain_ok == self.is_older:
            return False
        self.is_older = is_plain_ok
        if is_plain_ok:
            self.unsaved["older"] = "1"
        else:
            self._thaw()
            self._first.clear()
            self._closes.clear()
            self.unsaved["older"] = None
        return True

    def took(self, json: bytes, *, now: float, settled: bool) -> None:
        """It has taken this bar; ``settled``: as the one of its day."""
        bar = bar_of(json)
        self._closes[bar.symbol] = bar.close
        if settled and not self._is_internal:
            self._settled[bar.symbol] = bar.epoch
            self.unsaved[f"settled:{bar.symbol}"] = str(bar.epoch)
        first = self._first.get(bar.symbol)
        if first is None or first.bar.day < bar.day:
            self._first[bar.symbol] = FirstBar(bar, now)

    def refused(self, json: bytes) -> None:
        """It has refused this bar for what it says: somebody moved what it judges by."""
        self._refused.add(bar_of(json).symbol)

    # --- What it may be sent --------------------------------------------------------------------

    def counts_against_us(self, symbol: str, newest: Newest) -> bool:
        """Whether a public door would make a failure of this bar."""
        if not self.is_older or self._is_internal:
            return False
        served = self._closes.get(symbol)
        if symbol in self._refused:
            return True
        return served is not None and abs(float(newest.anchor) - served) / served > MOST_OFF

    def lacks_settled(self, symbol: str, newest: Newest) -> bool:
        """Whether a public older node, whose closes we know, hasn't got the day's settled bar."""
        return self._has_looked and self._settled.get(symbol) != newest.day

    # --- What it serves -------------------------------------------------------------------------

    def is_due(self, *, now: float) -> bool:
        """Whether an hour has passed since the last look at an older node."""
        return self.is_older and now - self.looked_at >= LOOK_EVERY

    def should_be_looked_at(self, ours: Mapping[str, Newest], *, now: float) -> bool:
        """Whether a look would tell something: of an internal one when ours has moved on from what
        it has had for ten minutes."""
        if not self.is_due(now=now):
            return False
        if self.is_frozen or not self._is_internal:
            return True
        return any(
            now - first.known_at >= FROZEN_AFTER and _differs(ours[symbol], first.bar)
            for symbol, first in self._first.items()
            if symbol in ours
        )

    def serves(
        self,
        served: Mapping[str, Bar | None],
        ours: Mapping[str, Newest],
        *,
        now: float,
        at: int,
        trading: bool,
    ) -> None:
        """A look has shown its last bars (None: what is no bar); ``at`` in epoch milliseconds.

        Only while the exchange trades does a bar that keeps up with ours show a fetch of its own.
        """
        self._has_looked = True
        self._closes = {symbol: bar.close for symbol, bar in served.items() if bar}
        # Whatever it judges by then, we can't.
        self._refused = {symbol for symbol, bar in served.items() if bar is None}
        if not self._is_internal:
            return
        compared = stuck = moving = 0
        for symbol, bar, newest in _of_one_day(served, ours):
            first = self._first.get(symbol)
            if first is None or first.bar.day != bar.day or bar.volume < first.bar.volume:
                self._first[symbol] = FirstBar(bar, now)
                compared += 1
                moving += bar.volume >= KEEPS_UP * newest.volume
            elif _differ(bar, first.bar):
                compared += 1
                moving += bar.volume >= KEEPS_UP * newest.volume
            elif _differs(newest, bar):
                compared += 1
                stuck += now - first.known_at >= FROZEN_AFTER
        if self.is_frozen and trading and 2 * moving > compared:
            self._thaw()
        elif not self.is_frozen and 2 * stuck > compared:
            self.frozen_since = at
            self.unsaved["frozen"] = str(at)

    def _thaw(self) -> None:
        self.frozen_since = None
        self.unsaved["frozen"] = None


def _of_one_day(
    served: Mapping[str, Bar | None], ours: Mapping[str, Newest]
) -> Iterable[tuple[str, Bar, Newest]]:
    for symbol, bar in served.items():
        newest = ours.get(symbol)
        if bar and newest and newest.authority is Authority.CORE and newest.day == bar.epoch:
            yield symbol, bar, newest


def _differs(newest: Newest, bar: Bar) -> bool:
    return newest.day == bar.epoch and _differ(bar_of(newest.json), bar)


def _differ(one: Bar, other: Bar) -> bool:
    """Whether two bars of a day aren't one, however their prices are written."""
    return one.volume != other.volume or abs(one.close - other.close) > 1e-6 * one.close


# --- Settled bars ---------------------------------------------------------------------------------


def is_settled(
    newest: Newest, *, clock: MarketClock, now_ms: int, since_fetch: float | None
) -> bool:
    """Whether a bar has not changed for 15 min after its day's close, though we fetched.

    ``now_ms``: Redis TIME, as the bar is dated; ``since_fetch``: seconds since our own last fetch,
    None: never.
    """
    if since_fetch is None or now_ms - newest.stored_at < SETTLES_AFTER * 1000:
        return False
    fetched_at = clock.now() - dt.timedelta(seconds=since_fetch)
    return fetched_at >= _settling_time(day_of(newest.day), clock)


def settles_public(clock: MarketClock) -> bool:
    """Whether it is the time of a trading day at which a public older node gets settled bars."""
    local = clock.now().astimezone(EXCHANGE_ZONE)
    after = clock.now() >= _settling_time(local.date(), clock)
    return after and local.time() < PUBLIC_UNTIL and clock.trading_day() == local.date()


def _settling_time(day: dt.date, clock: MarketClock) -> dt.datetime:
    hours = clock.office_hours
    close = dt.datetime.combine(day, hours.end, tzinfo=hours.zone)
    return close + dt.timedelta(seconds=SETTLES_AFTER)
