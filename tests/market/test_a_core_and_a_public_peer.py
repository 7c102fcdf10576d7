"""A core node delivers a whole real day at a public peer's door, and none of its bars is refused.

The peer's own fetch is one step behind the core's. On 2025-07-29 an honest core was banned with its
first delivery by its public peer, which judged each bar by its own close; on 2025-06-10 within five
minutes.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from django.core.cache import cache
from django.test import override_settings

from reputation.models import Actor
from tests.support.doors import empty_market, forget, merge_core, send_public  # noqa: F401 - fixture
from tests.support.real_days import Day, days, steps
from tickers.bar import Bar
from tickers.store.store import Store

pytestmark = pytest.mark.django_db

BUSY_DAYS = (dt.date(2025, 7, 29), dt.date(2025, 6, 10))
CORE = "203.0.113.50"
PARTS = 3  # of each way from one of a day's four prices to the next


@pytest.fixture(params=BUSY_DAYS, ids=str)
def real_day(request: Any, empty_market: Store) -> Iterator[list[Day]]:  # noqa: F811
    """The symbols' bars of the day, at noon of it; the peer has the bars of the day before."""
    date: dt.date = request.param
    noon = dt.datetime.combine(date, dt.time(5), dt.UTC)
    with override_settings(DEBUG_SYSTEM_TIME=noon, HISTORY_START=dt.date(2024, 1, 1)):
        forget()
        todays = [day for day in days()[date] if day.before]
        merge_core(*(day.before for day in todays if day.before))
        yield todays
        forget()


@pytest.mark.parametrize("low_first", [True, False])
def test_no_bar_of_a_real_day_is_refused(real_day: list[Day], low_first: bool) -> None:
    stages = [
        list(stage)
        for stage in zip(
            *(gradually(day.bar, low_first=low_first) for day in real_day), strict=True
        )
    ]
    behind: list[Bar] = []
    refused: list[Any] = []
    for stage in stages:
        if behind:
            merge_core(*behind)
        cache.clear()  # a stage is minutes after the one before
        answer = send_public([_wire(bar) for bar in stage], address=CORE)
        assert answer.status_code == 200, answer.content[:300]
        refused += [told for told in answer.json()["results"] if told["verdict"] == "refused"]
        behind = stage
    implausible = [told for told in refused if told["code"] == "implausible_price"]
    assert implausible == []
    assert Actor.objects.filter(failed_updates__gt=0).count() == 0


def gradually(bar: Bar, *, low_first: bool) -> list[Bar]:
    """The day as it grew, with a few trades between its open, its extremes and its close."""
    grown = list(steps(bar, low_first=low_first))
    path = [grown[0]]
    for before, after in pairwise(grown):
        for part in range(1, PARTS + 1):
            close = before.close + (after.close - before.close) * part / PARTS
            close = after.close if part == PARTS else round(close, 2)
            path.append(
                replace(
                    after,
                    close=close,
                    high=max(path[-1].high, close),
                    low=min(path[-1].low, close),
                    volume=before.volume + (after.volume - before.volume) * part // PARTS,
                )
            )
    return path


def _wire(bar: Bar) -> dict[str, Any]:
    prices = {name: getattr(bar, name) for name in ("open", "high", "low", "close")}
    return {"symbol": bar.symbol, "time": f"{bar.day}T00:00:00Z", **prices, "volume": bar.volume}
