"""The market clock, and Vietnam's trading days against the exchange's own."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.market_clock import EXCHANGE_ZONE, Calendar, MarketClock, OfficeHours, is_trading_day

# The weekdays from 2024-01-02 to 2025-08-25 on which neither VNINDEX nor any of 286 shares has a
# bar in the exchange broker's own daily history: the days on which the exchanges were closed.
CLOSED = """
2024-02-08 2024-02-09 2024-02-12 2024-02-13 2024-02-14 2024-04-18 2024-04-29 2024-04-30 2024-05-01
2024-09-02 2024-09-03 2025-01-01 2025-01-27 2025-01-28 2025-01-29 2025-01-30 2025-01-31 2025-04-07
2025-04-30 2025-05-01 2025-05-02
"""

# The days of 2026 that HOSE announced in December 2025 as closed.
ANNOUNCED_FOR_2026 = """
2026-01-01 2026-02-16 2026-02-17 2026-02-18 2026-02-19 2026-02-20 2026-04-27 2026-04-30 2026-05-01
2026-08-31 2026-09-01 2026-09-02
"""


def clock(local: str, hours: OfficeHours | None = None) -> MarketClock:
    """Stopped at a time of the exchange's."""
    moment = dt.datetime.fromisoformat(local).replace(tzinfo=EXCHANGE_ZONE)
    return MarketClock(office_hours=hours or OfficeHours(), frozen_at=moment)


class TestTradingDays:
    def test_they_are_the_days_on_which_the_exchanges_were_open(self) -> None:
        first, last = dt.date(2024, 1, 2), dt.date(2025, 8, 25)
        days = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
        closed = [day.isoformat() for day in days if day.weekday() < 5 and not is_trading_day(day)]
        assert closed == CLOSED.split()
        assert sum(is_trading_day(day) for day in days) == 409

    @pytest.mark.parametrize(
        "day",
        [
            "2025-01-27",  # the week of Tet
            "2025-01-31",
            "2025-09-02",  # National Day, and the day that goes with it
            "2025-09-01",
            "2025-08-16",  # a Saturday
            "2025-08-17",
            "2024-05-04",  # a Saturday that offices worked in exchange for 29 April
        ],
    )
    def test_the_exchange_is_closed_at_weekends_and_on_holidays(self, day: str) -> None:
        assert not is_trading_day(dt.date.fromisoformat(day))

    @pytest.mark.parametrize("day", ANNOUNCED_FOR_2026.split())
    def test_the_exchange_is_closed_as_announced(self, day: str) -> None:
        assert not is_trading_day(dt.date.fromisoformat(day))

    def test_the_first_session_of_2026_was_on_monday_the_fifth(self) -> None:
        assert not is_trading_day(dt.date(2026, 1, 2))
        assert is_trading_day(dt.date(2026, 1, 5))
        assert clock("2026-01-04T12:00").trading_day() == dt.date(2025, 12, 31)

    def test_an_operator_may_name_holidays_and_trading_days(self) -> None:
        monday, holiday = dt.date(2025, 8, 18), dt.date(2025, 9, 2)
        corrected = Calendar(frozenset({monday}), frozenset({holiday}))
        assert not corrected.is_trading_day(monday)
        assert corrected.is_trading_day(holiday)
        assert Calendar(frozenset({monday}), frozenset({monday})).is_trading_day(monday)

    def test_days_between_two_are_counted_without_them(self) -> None:
        friday, tuesday = dt.date(2025, 8, 15), dt.date(2025, 8, 19)
        assert Calendar().trading_days_between(friday, tuesday) == 1
        assert Calendar().trading_days_between(friday, friday) == 0
        assert Calendar().trading_days_between(tuesday, friday) == 0

    @pytest.mark.parametrize("day", ["2025-01-24", "2025-02-03", "2025-08-29", "2025-09-03"])
    def test_the_exchange_is_open_on_the_days_around_holidays(self, day: str) -> None:
        assert is_trading_day(dt.date.fromisoformat(day))


class TestTradingDay:
    @pytest.mark.parametrize(
        ("local", "day"),
        [
            ("2025-08-15T09:00:00", "2025-08-15"),
            ("2025-08-15T08:59:59.999", "2025-08-14"),
            ("2025-08-15T23:59:59", "2025-08-15"),
            ("2025-08-16T00:00:00", "2025-08-15"),
            ("2025-08-17T12:00:00", "2025-08-15"),  # Sunday: Friday
            ("2025-08-18T08:59:00", "2025-08-15"),  # Monday before the session: Friday
            ("2025-08-18T09:00:00", "2025-08-18"),
            ("2025-01-30T12:00:00", "2025-01-24"),  # Tet
            ("2025-02-03T08:00:00", "2025-01-24"),
            ("2025-02-03T09:00:00", "2025-02-03"),
            ("2025-09-02T10:00:00", "2025-08-29"),
        ],
    )
    def test_it_is_the_last_whose_session_has_opened(self, local: str, day: str) -> None:
        assert clock(local).trading_day() == dt.date.fromisoformat(day)

    @given(st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2026, 12, 31)))
    def test_it_is_a_trading_day_and_never_in_the_future(self, local: dt.datetime) -> None:
        now = clock(local.isoformat())
        day = now.trading_day()
        assert is_trading_day(day)
        assert day <= now.today()
        between = range(1, (now.today() - day).days)
        assert not any(is_trading_day(day + dt.timedelta(days=n)) for n in between)

    def test_it_doesnt_depend_on_the_configured_hours(self) -> None:
        hours = OfficeHours(start=dt.time(13), zone=ZoneInfo("UTC"))
        assert clock("2025-08-15T09:00:00", hours).trading_day() == dt.date(2025, 8, 15)


class TestNow:
    def test_today_is_the_date_at_the_exchange(self) -> None:
        evening = dt.datetime(2025, 8, 15, 17, 0, tzinfo=dt.UTC)
        assert MarketClock(frozen_at=evening).today() == dt.date(2025, 8, 16)
        before = evening - dt.timedelta(microseconds=1)
        assert MarketClock(frozen_at=before).today() == dt.date(2025, 8, 15)

    def test_it_runs_with_the_wall_time(self) -> None:
        times = iter([0.0, 1_755_226_800.0])
        running = MarketClock(wall_time=lambda: next(times))
        assert running.now() == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        assert running.now() == dt.datetime(2025, 8, 15, 3, tzinfo=dt.UTC)

    def test_frozen_it_stands_whatever_the_wall_time(self) -> None:
        moment = dt.datetime(2025, 8, 15, 10, tzinfo=EXCHANGE_ZONE)
        times = iter([0.0, 1e9])
        frozen = MarketClock(frozen_at=moment, wall_time=lambda: next(times))
        assert frozen.now() == frozen.now() == moment
        assert next(times) == 0.0


class TestOfficeHours:
    @pytest.mark.parametrize(
        ("local", "open_"),
        [
            ("2025-08-15T08:59:59.999999", False),
            ("2025-08-15T09:00:00", True),
            ("2025-08-15T12:00:00", True),  # no break at noon
            ("2025-08-15T14:59:59.999999", True),
            ("2025-08-15T15:00:00", False),
            ("2025-08-16T10:00:00", False),  # Saturday
            ("2025-09-02T10:00:00", False),
            ("2025-01-29T10:00:00", False),
        ],
    )
    def test_they_are_nine_to_three_on_trading_days(self, local: str, open_: bool) -> None:
        assert clock(local).in_office_hours() is open_

    @pytest.mark.parametrize(
        ("utc", "open_"),
        [
            ("2025-08-15T01:59:59+00:00", False),
            ("2025-08-15T02:00:00+00:00", True),
            ("2025-08-15T07:59:59+00:00", True),
            ("2025-08-15T08:00:00+00:00", False),
        ],
    )
    def test_whatever_zone_the_time_is_told_in(self, utc: str, open_: bool) -> None:
        moment = dt.datetime.fromisoformat(utc)
        assert MarketClock(frozen_at=moment).in_office_hours() is open_

    @pytest.mark.parametrize(
        ("local", "ago", "open_"),
        [
            ("2025-08-15T09:00:59", 60, False),
            ("2025-08-15T09:01:00", 60, True),
            ("2025-08-15T15:00:59", 60, True),
            ("2025-08-16T09:30:00", 24 * 3600, True),
        ],
    )
    def test_of_a_while_ago(self, local: str, ago: float, open_: bool) -> None:
        assert clock(local).in_office_hours(ago=ago) is open_

    def test_off_the_exchange_is_always_at_work(self) -> None:
        off = OfficeHours(enabled=False)
        assert clock("2025-08-17T03:00:00", off).in_office_hours()
        assert clock("2025-01-29T10:00:00", off).in_office_hours()

    def test_they_follow_what_is_configured(self) -> None:
        hours = OfficeHours(start=dt.time(8, 30), end=dt.time(16))
        assert clock("2025-08-15T08:30:00", hours).in_office_hours()
        assert clock("2025-08-15T15:59:59", hours).in_office_hours()
        in_utc = OfficeHours(zone=ZoneInfo("UTC"))
        assert clock("2025-08-15T16:00:00", in_utc).in_office_hours()
        assert not clock("2025-08-15T15:59:59", in_utc).in_office_hours()
