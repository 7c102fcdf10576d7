"""What a full answer shows beside the stored series, on real days and on made ones."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.bars import bar
from tests.support.real_days import days
from tickers.bar import Bar
from tickers.suspects import APART, Reason, Suspect, fingerprint, is_beyond, judge, most_adjusted

MINUTE = 60_000  # milliseconds


def found(bars: Sequence[Bar], stored: Sequence[Bar]) -> tuple[bool, Reason | None]:
    finding = judge(bars, {held.epoch: held.encode() for held in stored}, stored[-1].epoch)
    return finding.adjusted, finding.reason


def times(bars: Sequence[Bar], factor: float, *, digits: int = 2) -> list[Bar]:
    def moved(price: float) -> float:
        return round(price * factor, digits)

    return [
        replace(b, open=moved(b.open), high=moved(b.high), low=moved(b.low), close=moved(b.close))
        for b in bars
    ]


def as_if(symbol: str, bars: Sequence[Bar]) -> list[Bar]:
    return [replace(b, symbol=symbol) for b in bars]


def open_and_close_swapped(bars: Sequence[Bar]) -> list[Bar]:
    swapped = []
    for b in bars:
        high, low = max(b.high, b.open), min(b.low, b.open)
        swapped.append(Bar(b.symbol, b.day, b.close, high, low, b.open, b.volume))
    return swapped


def series(symbol: str) -> list[Bar]:
    return [day.bar for of_day in days().values() for day in of_day if day.bar.symbol == symbol]


VCB, FPT, CTG, VNINDEX = (series(symbol) for symbol in ("VCB", "FPT", "CTG", "VNINDEX"))


def test_a_series_that_is_as_it_was_shows_nothing() -> None:
    finding = judge(VCB, {b.epoch: b.encode() for b in VCB}, VCB[-1].epoch)
    assert not finding.differs
    assert (finding.adjusted, finding.reason) == (False, None)


@pytest.mark.parametrize("factor", [0.9992, 0.97, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("ex_date", [-1, -2, -3, -40])
def test_an_ordinary_ex_date_is_an_adjustment_and_nothing_else(factor: float, ex_date: int) -> None:
    """0.5 is a bonus issue of 100 %, 0.1 a split of 1:10; prices are rounded to a hundredth or to
    ten."""
    for digits in (2, 0, -1):
        before = [*times(FPT[:ex_date], 1 / factor), *FPT[ex_date:]]
        bars = [*times(FPT[:ex_date], 1, digits=digits), *FPT[ex_date:]]
        assert found(bars, before)[1] is None


def test_all_closed_days_of_an_ex_date_today_move_together() -> None:
    today = times(FPT[-1:], 0.1)
    split = [*times(FPT[:-1], 0.1, digits=0), *today]
    assert found(split, FPT) == (True, None)
    assert found([*split[:-1], *times(today, 0.95)], FPT[:-1]) == (True, None)


def test_several_ex_dates_since_the_last_answer_are_ordinary() -> None:
    bars = [*times(VCB[:100], 0.4), *times(VCB[100:200], 0.8), *times(VCB[200:300], 0.95)]
    assert found([*bars, *VCB[300:]], VCB) == (True, None)


@pytest.mark.parametrize("factor", [1000.0, 0.001, 11.0])
def test_a_history_in_another_unit_is_beyond_ten_times(factor: float) -> None:
    assert found(times(VCB, factor, digits=6), VCB)[1] is Reason.BEYOND
    assert found([*times(VCB[:-1], factor, digits=6), VCB[-1]], VCB)[1] is Reason.BEYOND
    assert found([*VCB[:-1], *times(VCB[-1:], factor, digits=6)], VCB)[1] is Reason.BEYOND


@pytest.mark.parametrize(
    ("wrong", "stored"),
    [
        (as_if("VCB", FPT), VCB),
        (as_if("FPT", VCB), FPT),
        (as_if("VCB", times(CTG, VCB[0].close / CTG[0].close)), VCB),
        (open_and_close_swapped(VCB), VCB),
        (open_and_close_swapped(VNINDEX), VNINDEX),
        ([*VCB[:200], *times(VCB[200:201], 1.06), *VCB[201:]], VCB),
        ([*VCB[:200], *times(VCB[200:201], 1.02), *times(VCB[201:202], 0.97), *VCB[202:]], VCB),
    ],
)
def test_days_that_moved_by_no_constant_factor_are_unsteady(
    wrong: list[Bar], stored: list[Bar]
) -> None:
    assert found(wrong, stored)[1] is Reason.UNSTEADY


def test_a_single_day_may_be_corrected_by_less_than_five_percent() -> None:
    corrected = [*VCB[:200], *times(VCB[200:201], 1.04), *VCB[201:]]
    assert found(corrected, VCB) == (False, None)


def test_holes_that_are_filled_and_days_that_go_are_no_adjustment() -> None:
    holes = [*VCB[:50], *VCB[120:300], *VCB[301:]]
    assert found(VCB, holes) == (False, None)
    assert found(holes, VCB) == (False, None)


@given(
    at=st.lists(st.integers(10, len(VCB) - 10), min_size=1, max_size=4, unique=True),
    factors=st.lists(st.floats(0.6, 0.99), min_size=4, max_size=4),
)
def test_ex_dates_a_week_apart_are_never_suspect(at: list[int], factors: list[float]) -> None:
    ex_dates = sorted(at)
    assume(all(later - earlier >= 5 for earlier, later in pairwise(ex_dates)))
    bars = list(VCB)
    for day, factor in zip(ex_dates, factors, strict=False):
        bars = [*times(bars[:day], factor), *bars[day:]]
    assert found(bars, VCB)[1] is None


def test_exactly_ten_times_is_not_beyond() -> None:
    assert not is_beyond(bar(close=100, half_width=0), 1_000)
    assert not is_beyond(bar(close=10_000, half_width=0), 1_000)
    assert is_beyond(bar(close=10_001, half_width=0), 1_000)
    assert is_beyond(bar(close=99, half_width=0), 1_000)


def test_a_tenth_of_the_symbols_may_be_adjusted_in_a_cycle_and_ten_of_a_small_universe() -> None:
    assert [most_adjusted(count) for count in (4, 100, 287)] == [10, 10, 28]


# --- Two equal answers ----------------------------------------------------------------------------

DAYS = [dt.date(2025, 8, day) for day in (11, 12, 13, 14)]
BARS = [bar(day=day) for day in DAYS]


def after(now: int, bars: list[Bar], held: Suspect | None = None) -> Suspect:
    return (held or Suspect(since=now, reason=Reason.MANY)).after(bars, Reason.MANY, now)


def test_two_equal_full_answers_ten_minutes_apart_speak_for_each_other() -> None:
    held = after(0, BARS)
    assert not held.is_confirmed_by(BARS, 9 * MINUTE)
    assert held.is_confirmed_by(BARS, round(APART * 1000))


def test_another_answer_begins_anew_and_the_same_one_goes_on() -> None:
    other = times(BARS, 0.9)
    held = after(5 * MINUTE, other, after(0, BARS))
    assert not held.is_confirmed_by(other, 12 * MINUTE)
    assert not held.is_confirmed_by(BARS, 20 * MINUTE)
    assert held.is_confirmed_by(other, 15 * MINUTE)
    assert after(5 * MINUTE, BARS, after(0, BARS)).is_confirmed_by(BARS, 10 * MINUTE)
    assert held.since == 0


@pytest.mark.parametrize(
    "moves",
    [
        lambda bars: [*bars[:-1], replace(bars[-1], volume=9_999)],
        lambda bars: [*bars, bar(day=dt.date(2025, 8, 15))],
    ],
)
def test_the_day_that_an_answer_ends_with_may_change(
    moves: Callable[[list[Bar]], list[Bar]],
) -> None:
    assert after(0, BARS).is_confirmed_by(moves(BARS), 10 * MINUTE)


def test_a_suspect_is_read_back_as_it_was_written() -> None:
    held = after(7, BARS)
    assert Suspect.parse(held.encode().encode()) == held
    assert held.fingerprint == fingerprint(BARS, "2025-08-14")
