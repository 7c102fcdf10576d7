"""What /health says of suspects, of stale symbols, of days, and of the last audit."""

import datetime as dt
from collections.abc import Iterator, Sequence

import pytest
import redis

from proxy_site.market_health import stale_symbols
from tests.support.bars import FRIDAY, THURSDAY, bar, exchange_time
from tests.support.doors import CLIENT, forget, lead
from tickers import wiring
from tickers.market_clock import MarketClock, is_trading_day
from tickers.snapshot.series import Series
from tickers.store.store import Store
from tickers.suspects import Reason, Suspect
from tickers.verdict import Authority

MORNING, EVENING = exchange_time(FRIDAY, 10), exchange_time(FRIDAY, 16)
SUNDAY = dt.date(2025, 8, 10)


def series(*, last: dt.date, lacks: Sequence[dt.date] = (), days: int = 40) -> Series:
    made = [last - dt.timedelta(days=back) for back in reversed(range(days))]
    kept = [bar(day=day) for day in made if is_trading_day(day) and day not in lacks]
    return Series.of([(one.epoch, one.encode()) for one in kept])


def stale(at: dt.datetime, of: dict[str, Series], **unseen: str) -> list[tuple[str, str, str]]:
    found = stale_symbols(MarketClock(frozen_at=at), of, unseen)
    return [(entry["symbol"], entry["day"], entry["since"]) for entry in found]


UP_TO_DATE = {"VCB": series(last=FRIDAY), "FPT": series(last=FRIDAY)}
WEDNESDAY = dt.date(2025, 8, 13)


class TestStaleSymbols:
    def test_one_without_a_bar_of_a_day_that_is_done_is_stale(self) -> None:
        behind = {**UP_TO_DATE, "ACB": series(last=THURSDAY)}
        assert stale(EVENING, behind) == [("ACB", "2025-08-14", "2025-08-15")]
        assert stale(MORNING, behind) == [], "its first trade of the day may come yet"
        earlier = {**UP_TO_DATE, "ACB": series(last=WEDNESDAY)}
        assert stale(MORNING, earlier) == [("ACB", "2025-08-13", "2025-08-14")]

    def test_nothing_is_while_the_whole_market_stands_still(self) -> None:
        market = {"VCB": series(last=FRIDAY), **{s: series(last=WEDNESDAY) for s in "ABC"}}
        assert stale(EVENING, market) == []

    def test_one_that_often_has_no_trade_may_lack_a_day(self) -> None:
        thin = series(last=THURSDAY, lacks=[dt.date(2025, 8, 5)])
        assert stale(EVENING, {**UP_TO_DATE, "ACB": thin}) == []

    def test_one_that_no_answer_had_is_stale_whatever_its_day_is(self) -> None:
        since = "2025-08-15T02:40:00+00:00"
        assert stale(MORNING, UP_TO_DATE, FPT=since) == [("FPT", "2025-08-15", since)]


@pytest.fixture
def node(clean_server: redis.Redis) -> Iterator[Store]:
    forget()
    yield wiring.store()
    forget()


@pytest.mark.django_db
class TestHealth:
    def test_names_suspects_and_why(self, node: Store) -> None:
        with lead(node) as fence:
            found = {f"S{n:02}": Suspect(node.now(), Reason.BEYOND) for n in range(30)}
            node.note_suspects(found, fence=fence)
        body = CLIENT.get("/health").json()
        assert (body["status"], body["suspects_count"]) == ("degraded", 30)
        assert [entry["symbol"] for entry in body["suspects"]] == sorted(found)[:20]
        assert "more than ten times" in body["suspects"][0]["reason"]
        assert "suspects, whose last good series are served (30): S00 since 20" in str(
            body["problems"]
        )

    def test_names_stale_symbols(self, node: Store) -> None:
        with lead(node) as fence:
            days = [FRIDAY - dt.timedelta(days=n) for n in range(7)]
            old = [bar("ACB", dt.date(2025, 8, 11))]
            bars = [bar(symbol, day) for symbol in ("VCB", "FPT") for day in days[::-1]]
            node.merge([*old, *bars], Authority.CORE, fence=fence)
        body = CLIENT.get("/health").json()
        assert body["symbols_stale"] == [
            {"symbol": "ACB", "day": "2025-08-11", "since": "2025-08-12"}
        ]
        assert "stale symbols (1): ACB since 2025-08-12" in body["problems"]
        assert "ACB" not in body["symbols_missing"]
        assert body["symbols_missing_count"] == 284

    def test_says_which_days_the_calendar_does_not_know(self, node: Store) -> None:
        with lead(node) as fence:
            node.note_trading_days({SUNDAY}, fence=fence)
        assert "EXTRA_TRADING_DAYS=2025-08-10" in str(CLIENT.get("/health").json()["problems"])

    def test_says_what_the_last_audit_found(self, node: Store) -> None:
        assert CLIENT.get("/health").json()["audit"] is None
        with lead(node) as fence:
            node.write_audit({"day": "2025-08-14", "symbols_changed": 2}, fence=fence)
        assert CLIENT.get("/health").json()["audit"]["symbols_changed"] == 2
