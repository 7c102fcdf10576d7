"""An older node (Rust) is a peer that gets other bars than a node of our kind.

It answers a bar with a plain ``OK``, keeps the first bar of a day, and drops later ones with the
same ``OK``. If it fetches for itself, its fetch replaces them. If only gossip reaches it, it is
*frozen* at the first bar of a day, so it is sent that day's bars only once they are settled. Its
public door serves a stranger's bar as the last one and judges the next bar by that: a bar more than
10 % away counts against its sender.

The module is pure logic: it takes answers, bars and times (seconds of one monotonic clock).
gossip.delivery.watch reads what the peer serves and keeps what was learned.
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
KEEPS_UP = 0.9  # of our volume; a peer with less stopped fetching a while ago
MOST_OFF = 0.10  # the network's limit of a close's change; existing nodes count more as a failure

SETTLES_AFTER = 900.0  # seconds without a change after the close
PUBLIC_UNTIL = dt.time(17, 0)  # exchange time after which public peers get no bar of the day


@dataclass(frozen=True, slots=True)
class FirstBar:
    """The earliest bar of a day that a peer is known to have, and since when we know it."""

    bar: Bar
    known_at: float


class OlderNode:
    """One peer as an older node; nothing here applies until the peer answers as one.

    ``frozen_since`` is when it was found frozen, in epoch milliseconds; None: it isn't. ``unsaved``
    has the notes to be written for a later process: field → text, None for one to be deleted.
    """

    def __init__(self, kind: PeerKind) -> None:
        self._is_internal = kind is PeerKind.INTERNAL
        self.is_older = False
        self.frozen_since: int | None = None
        self.looked_at = float("-inf")
        self.unsaved: dict[str, str | None] = {}
        self._has_looked = False
        self._first: dict[str, FirstBar] = {}
        self._closes: dict[str, float] = {}  # the closes it judges by, as far as is known
        self._refused: set[str] = set()  # symbols that it refused since the last look
        self._settled: dict[str, int] = {}  # symbol → day (epoch seconds) of the settled bar sent

    def restore(self, fields: Mapping[str, str], *, looked_at: float) -> None:
        """Take over the notes of an earlier process, as ``unsaved`` had them."""
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
        """Learn which kind of node the peer is from how it took a bar.

        Returns whether that changes what was known.
        """
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
        """Note that the peer has taken this bar; ``settled``: as the only bar of its day."""
        bar = bar_of(json)
        self._closes[bar.symbol] = bar.close
        if settled and not self._is_internal:
            self._settled[bar.symbol] = bar.epoch
            self.unsaved[f"settled:{bar.symbol}"] = str(bar.epoch)
        first = self._first.get(bar.symbol)
        if first is None or first.bar.day < bar.day:
            self._first[bar.symbol] = FirstBar(bar, now)

    def refused(self, json: bytes) -> None:
        """Note that the peer refused this bar for what it says: its last bar isn't ours."""
        self._refused.add(bar_of(json).symbol)

    # --- What it may be sent --------------------------------------------------------------------

    def counts_against_us(self, symbol: str, newest: Newest) -> bool:
        """Return whether the peer's public door would count this bar as a failure."""
        if not self.is_older or self._is_internal:
            return False
        served = self._closes.get(symbol)
        if symbol in self._refused:
            return True
        return served is not None and abs(float(newest.anchor) - served) / served > MOST_OFF

    def lacks_settled(self, symbol: str, newest: Newest) -> bool:
        """Return whether a public older node whose closes are known lacks the settled bar."""
        return self._has_looked and self._settled.get(symbol) != newest.day

    # --- What it serves -------------------------------------------------------------------------

    def is_due(self, *, now: float) -> bool:
        """Return whether an hour has passed since the last look at an older node."""
        return self.is_older and now - self.looked_at >= LOOK_EVERY

    def should_be_looked_at(self, ours: Mapping[str, Newest], *, now: float) -> bool:
        """Return whether a look is due and can show something new.

        An internal peer that isn't frozen is looked at only when a bar of ours has changed since
        the peer got it, ten minutes ago or earlier.
        """
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
        """Learn from the last bars that the peer serves (None: an entry that is no valid bar).

        ``at`` is in epoch milliseconds. A bar that keeps up with ours shows that the peer fetches
        for itself, but only while the exchange is ``trading``.
        """
        self._has_looked = True
        self._closes = {symbol: bar.close for symbol, bar in served.items() if bar}
        # The close that it judges these symbols by can't be known.
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
    """Return whether two bars of a day differ by more than how their prices are written."""
    return one.volume != other.volume or abs(one.close - other.close) > 1e-6 * one.close


# --- Settled bars ---------------------------------------------------------------------------------


def is_settled(
    newest: Newest, *, clock: MarketClock, now_ms: int, since_fetch: float | None
) -> bool:
    """Return whether a bar is settled: unchanged for 15 min after its day's close.

    Our own fetch must have run since then. ``now_ms`` is Redis TIME, by which the bar's
    ``stored_at`` is written too; ``since_fetch`` is seconds since the last fetch, None: never.
    """
    if since_fetch is None or now_ms - newest.stored_at < SETTLES_AFTER * 1000:
        return False
    fetched_at = clock.now() - dt.timedelta(seconds=since_fetch)
    return fetched_at >= _settling_time(day_of(newest.day), clock)


def settles_public(clock: MarketClock) -> bool:
    """Return whether public older nodes get settled bars now: after the close, before 17:00."""
    local = clock.now().astimezone(EXCHANGE_ZONE)
    after = clock.now() >= _settling_time(local.date(), clock)
    return after and local.time() < PUBLIC_UNTIL and clock.trading_day() == local.date()


def _settling_time(day: dt.date, clock: MarketClock) -> dt.datetime:
    hours = clock.office_hours
    close = dt.datetime.combine(day, hours.end, tzinfo=hours.zone)
    return close + dt.timedelta(seconds=SETTLES_AFTER)
