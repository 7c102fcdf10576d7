"""409 real days, judged as the public door judges them: no honest sender loses its place."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pytest

from gossip.doors.appeals import covers
from gossip.doors.plausibility import Known, Objection, objection
from gossip.wire import Code
from reputation.transitions import Outcome, Policy, Record, Status, Strike, apply
from tests.support.real_days import UNIVERSE, VOLUME, Day, days, steps
from tickers import bands
from tickers.bands import Range, decimal
from tickers.bar import Bar

POLICY = Policy()
NOON = dt.datetime(2025, 8, 15, 5, 0, tzinfo=dt.UTC)
# On these days many honest bars were refused by their own close: 39 symbols, and one.
BUSY_DAYS = (dt.date(2025, 7, 29), dt.date(2025, 6, 10))


def known(day: Day, trusted: Bar | None) -> Known:
    """What a node knows of the symbol when its trusted bar of the day is ``trusted``."""
    assert day.before is not None
    exchange = UNIVERSE.exchange(day.bar.symbol)
    newest, before = trusted or day.before, day.before
    return Known(
        anchor=decimal(newest.close),
        reference=bands.reference_range(
            exchange, low=before.low, high=before.high, close=before.close
        ),
        shown=Range(decimal(trusted.low), decimal(trusted.high)) if trusted else None,
        served=newest,
        largest_volume=VOLUME,
        exchange=exchange,
    )


def judged(day: Day, *, low_first: bool) -> Iterator[tuple[Bar, Objection | None]]:
    """Each step of the day, sent while the trusted bar is one step behind."""
    trusted = None
    for bar in steps(day.bar, low_first=low_first):
        yield (
            bar,
            objection(bar, known(day, trusted), trading_day=day.bar.day, max_change=0.10),
        )
        trusted = bar


def refused(day: Day) -> list[tuple[Bar, Objection]]:
    return [
        (bar, found)
        for low_first in (True, False)
        for bar, found in judged(day, low_first=low_first)
        if found
    ]


def outside_the_limits(day: Day) -> bool:
    """Whether the whole day has a price outside the limits that its reference gives."""
    now = known(day, None)
    assert now.reference is not None
    limits = bands.day_limits(now.exchange, now.reference, now.width(Decimal("0.10")))
    return any(decimal(price) not in limits for price in (day.bar.low, day.bar.high))


def check_appeals(day: Day) -> None:
    """All that was refused on the day is covered by its trusted bar, so that a sender that was
    banned by it isn't any more."""
    record = Record()
    failures = [bar for bar, _ in refused(day)]
    for _ in failures:
        record = apply(record=record, event=Outcome.IMPLAUSIBLE, policy=POLICY, at=NOON).record
    for bar in failures:
        assert covers(day.bar, bar), (day.bar, bar)
        record = apply(record=record, event=Strike(NOON), policy=POLICY, at=NOON).record
    assert record.status is Status.PROBATION
    assert record.failure_score == 0
    assert record.bans == 0


@pytest.mark.parametrize("date", BUSY_DAYS, ids=str)
def test_no_bar_of_a_busy_day_is_refused_by_its_own_close(date: dt.date) -> None:
    for day in days()[date]:
        whole = objection(day.bar, known(day, None), trading_day=date, max_change=0.10)
        assert whole is None, (day.bar, whole)


@pytest.mark.parametrize("date", BUSY_DAYS, ids=str)
def test_nothing_that_was_refused_on_a_busy_day_stands_at_its_end(date: dt.date) -> None:
    for day in days()[date]:
        check_appeals(day)


def test_of_all_days_ten_at_most_have_a_price_outside_their_limits() -> None:
    found = [
        day.bar
        for bars in days().values()
        for day in bars
        if day.before and outside_the_limits(day)
    ]
    assert len(found) <= 10
    # What is outside was listed on UPCOM then, whose limits are wider.
    assert {bar.symbol for bar in found} <= {"CST", "MCM", "VTP"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_that_was_refused_on_any_day_stands_at_its_end() -> None:
    refusals = 0
    for bars in days().values():
        for day in bars:
            if day.before is not None:
                check_appeals(day)
                refusals += len(refused(day))
    assert refusals > 0


def test_a_price_that_no_trusted_source_has_shown_is_refused_beyond_the_limits() -> None:
    """A HOSE share 17.5 % over its reference can't exist, however near to today's close it is."""
    before = Bar("VCB", dt.date(2025, 8, 14), 64_300, 64_300, 64_300, 64_300, VOLUME)
    today = Bar("VCB", dt.date(2025, 8, 15), 64_300, 68_800, 64_300, 68_800, VOLUME)
    lie = Bar("VCB", today.day, 64_300, 75_550, 64_300, 75_550, VOLUME)
    found = objection(lie, known(Day(today, before), today), trading_day=today.day, max_change=0.10)
    assert found is not None
    assert found.code is Code.IMPLAUSIBLE_PRICE
