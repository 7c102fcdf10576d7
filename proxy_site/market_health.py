"""This part of /health names suspect, stale and missing symbols, unknown days and the last audit.

Lists name the first twenty symbols; a count beside each says how many there are.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from tickers import wiring
from tickers.bar import day_of, epoch_of
from tickers.market_clock import EXCHANGE_ZONE, Calendar, MarketClock
from tickers.snapshot.series import Series
from tickers.store.records import State
from tickers.store.store import Store

NAMED = 20  # symbols that a list has
IN_A_PROBLEM = 5  # symbols that a problem names

# Exchange time by which a day's last bar has come; HNX closes at 15:00.
DAY_IS_DONE = dt.time(15, 15)
# A symbol without a bar on one of this many days before its last one is thinly traded, so that
# another day without a bar isn't stale.
USUAL_DAYS = 20


def of_symbols(
    store: Store,
    state: State,
    status: Mapping[str, Any],
    series: Mapping[str, Series],
    problems: list[str],
) -> dict[str, Any]:
    """Return the part of the answer about symbols and days; raise what redis raises."""
    suspects = [
        {"symbol": symbol, "since": _moment(held.since), "reason": held.reason.value}
        for symbol, held in sorted(store.suspects().items())
    ]
    stale = stale_symbols(wiring.market_clock(), series, status.get("unseen", {}))
    missing = [] if settings.IS_PUBLIC_NODE else sorted({*settings.UNIVERSE.symbols} - {*series})
    if suspects:
        problems.append(
            f"suspects, whose last good series are served ({len(suspects)}): {_some(suspects)}: "
            f"{suspects[0]['reason']}"
        )
    if stale:
        problems.append(f"stale symbols ({len(stale)}): {_some(stale)}")
    problems += unknown_days(state)
    return {
        "suspects": suspects[:NAMED],
        "suspects_count": len(suspects),
        "symbols_stale": stale[:NAMED],
        "symbols_stale_count": len(stale),
        "symbols_missing": missing[:NAMED],
        "symbols_missing_count": len(missing),
        "audit": store.audit() or None,
    }


def newest_series(store: Store) -> dict[str, Series]:
    """Return what ``of_symbols`` needs of each series, for a process that holds no snapshot: the
    newest bar, and the days before it of those that may be stale."""
    newest = store.newest()
    done = epoch_of(_last_day_done(wiring.market_clock()))
    series = {symbol: Series.of([(one.day, one.json)]) for symbol, one in newest.items()}
    behind = [symbol for symbol, one in newest.items() if one.day < done]
    for symbol, rows in store.series(behind, last=USUAL_DAYS + 2):
        if rows:
            series[symbol] = Series.of(rows)
    return series


def stale_symbols(
    clock: MarketClock, series: Mapping[str, Series], unseen: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the symbols that are behind while the market moves, with their day and since when.

    ``unseen`` (symbol → since) were in no answer for 15 min of open market. A symbol that was
    answered with an unchanged bar isn't stale, nor is a thinly traded one that lacks a day.
    """
    done = _last_day_done(clock)
    moved = sum(one.day >= epoch_of(done) for one in series.values())
    found = {}
    for symbol, one in series.items():
        if symbol in unseen:
            found[symbol] = unseen[symbol]
        elif 2 * moved >= len(series) and one.day < epoch_of(done) and _trades_daily(one, clock):
            found[symbol] = _next_trading_day(clock.calendar, day_of(one.day)).isoformat()
    return [
        {"symbol": symbol, "day": day_of(series[symbol].day).isoformat(), "since": found[symbol]}
        for symbol in sorted(found)
    ]


def unknown_days(state: State) -> list[str]:
    """Return a problem that names the days which only the market shows to be trading days."""
    configured = Calendar(settings.EXTRA_HOLIDAYS, settings.EXTRA_TRADING_DAYS)
    unknown = sorted(day for day in state.trading_days if not configured.is_trading_day(day))
    if not unknown:
        return []
    named = ", ".join(map(str, unknown))
    return [f"the market traded on days that the calendar calls closed: EXTRA_TRADING_DAYS={named}"]


def _last_day_done(clock: MarketClock) -> dt.date:
    local, day = clock.now().astimezone(EXCHANGE_ZONE), clock.trading_day()
    if day == local.date() and local.time() < DAY_IS_DONE:
        day -= dt.timedelta(days=1)
        while not clock.calendar.is_trading_day(day):
            day -= dt.timedelta(days=1)
    return day


def _next_trading_day(calendar: Calendar, day: dt.date) -> dt.date:
    day += dt.timedelta(days=1)
    while not calendar.is_trading_day(day):
        day += dt.timedelta(days=1)
    return day


def _trades_daily(series: Series, clock: MarketClock) -> bool:
    """Return whether a series has a bar of each of the 20 trading days before its newest.

    A series whose history isn't held or is shorter counts as such.
    """
    if series.history is None:
        return True
    first = last = day_of(series.day)
    for _ in range(USUAL_DAYS):
        first -= dt.timedelta(days=1)
        while not clock.calendar.is_trading_day(first):
            first -= dt.timedelta(days=1)
    held = series.history.days_from(epoch_of(first))
    known = series.history.days_from(0) < USUAL_DAYS  # a short history: nobody can tell
    return first < last and (held >= USUAL_DAYS or known)


def _moment(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).isoformat(timespec="seconds")


def _some(entries: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(
        f"{entry['symbol']} since {entry['since']}" for entry in entries[:IN_A_PROBLEM]
    )
