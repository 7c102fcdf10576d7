"""A history is a text with places in it, and does whatever a dict of bars would."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from tests.support.bars import FRIDAY, MONDAY, THURSDAY, bar
from tickers.bar import epoch_of
from tickers.snapshot import gzip_pieces, zstd_pieces
from tickers.snapshot.series import DAY, History, Series

# Bars of different lengths, of days far apart and near.
days = st.integers(-719_162, 2_932_896) | st.integers(20_000, 20_010)
bars = st.text("0123456789", min_size=1, max_size=12).map(str.encode)
rows = st.dictionaries(days.map(lambda day: day * DAY), bars, max_size=12)


def history_of(rows: dict[int, bytes]) -> History:
    return History(sorted(rows.items()))


@given(rows, st.lists(st.tuples(days.map(lambda day: day * DAY), bars), max_size=8))
def test_bars_that_are_put_in_are_where_they_belong(
    rows: dict[int, bytes], more: list[tuple[int, bytes]]
) -> None:
    history = history_of(rows)
    for day, one in more:
        history, rows = history.with_bar(day, one), {**rows, day: one}
    assert history.rows() == sorted(rows.items())
    assert history.joined == b",".join(one for _, one in sorted(rows.items()))
    assert len(history) == len(rows)


@given(
    rows,
    st.none() | st.integers(19_999 * DAY, 20_011 * DAY),
    st.none() | st.integers(19_999 * DAY, 20_011 * DAY),
    st.none() | st.integers(1, 14),
)
def test_a_cut_is_the_last_bars_of_the_days(
    rows: dict[int, bytes], start: int | None, end: int | None, limit: int | None
) -> None:
    chosen = [
        one
        for day, one in sorted(rows.items())
        if (start is None or day >= start) and (end is None or day <= end)
    ]
    kept = chosen if limit is None else chosen[-limit:]
    assert history_of(rows).cut(start, end, limit) == b",".join(kept)


def test_the_bars_of_all_days_that_there_are() -> None:
    """Four bytes a day hold every date that a bar can have."""
    first, last = dt.date(1, 1, 1), dt.date(9999, 12, 31)
    rows = [(epoch_of(day), bar(day=day).encode()) for day in (first, MONDAY, last)]
    assert History(rows).rows() == rows


def test_a_bar_takes_little_more_than_its_text() -> None:
    rows = [(epoch_of(MONDAY) + at * DAY, bar().encode()) for at in range(400)]
    history = History(rows)
    assert history.size <= sum(len(one) + 9 for _, one in rows) + 8


def test_each_compressed_form_is_made_once() -> None:
    history = History([(epoch_of(MONDAY), bar(day=MONDAY).encode())])
    assert history.packed_size == 0
    for coding in (gzip_pieces, zstd_pieces):
        assert history.packed(coding) is history.packed(coding)
    assert history.packed_size > 0


class TestSeries:
    def test_a_new_day_closes_the_one_before(self) -> None:
        series = Series.of([(epoch_of(THURSDAY), b"a")]).with_bar(epoch_of(FRIDAY), b"b")
        assert (series.day, series.newest) == (epoch_of(FRIDAY), b"b")
        assert series.history is not None
        assert series.history.rows() == [(epoch_of(THURSDAY), b"a")]

    def test_without_its_history_it_keeps_to_the_newest(self) -> None:
        series = Series.of([(epoch_of(THURSDAY), b"a")]).without_history()
        assert series.with_bar(epoch_of(MONDAY), b"b") == series
        assert series.with_bar(epoch_of(FRIDAY), b"b") == Series(None, epoch_of(FRIDAY), b"b")
