"""Every bar of an answer is checked; what is wrong spoils as little as it can."""

import datetime as dt
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.bar import Bar
from tickers.vci.answer import Point, frame, read
from tickers.vci.errors import AnswerError, HtmlError, NotJsonError, UpstreamError
from tickers.vci.rows import MOST_ROWS, Rows

MONDAY = 1_754_870_400  # 2025-08-11T00:00:00Z
DAY = 86_400


def item(
    symbol: str = "VCB", *, times: list[Any] | None = None, **columns: list[Any]
) -> dict[str, Any]:
    """A symbol's object: two good daily bars, but for what is given."""
    times = [str(MONDAY), str(MONDAY + DAY)] if times is None else times
    count = len(times)
    good = {
        "o": [100] * count,
        "h": [110] * count,
        "l": [90] * count,
        "c": [105] * count,
        "v": [7] * count,
    }
    return {"symbol": symbol, "t": times, **good, **columns, "accumulatedVolume": []}


def body(*items: Any) -> bytes:
    return json.dumps(items).encode()


def bars(*items: Any) -> list[Bar]:
    return read(body(*items), asked=["VCB"], interval="1D").series["VCB"]


class TestDailyBars:
    def test_columns_become_bars_sorted_by_day(self) -> None:
        times = [str(MONDAY + DAY), str(MONDAY)]
        first, second = bars(item(times=times, c=[104, 105.5]))
        assert first == Bar("VCB", dt.date(2025, 8, 11), 100, 110, 90, 105.5, 7)
        assert second == Bar("VCB", dt.date(2025, 8, 12), 100, 110, 90, 104, 7)

    def test_times_may_be_numbers(self) -> None:
        assert [bar.day.day for bar in bars(item(times=[MONDAY]))] == [11]

    def test_the_day_is_the_exchange_date_of_the_instant(self) -> None:
        # 17:00 UTC is midnight in Vietnam.
        times = [str(MONDAY + 17 * 3_600 - 1), str(MONDAY + 17 * 3_600)]
        assert [bar.day.day for bar in bars(item(times=times))] == [11, 12]

    @pytest.mark.parametrize(
        ("volumes", "close"), [([7, 7], 102), ([8, 7], 101), ([7, 8], 102), ([0, 0], 102)]
    )
    def test_of_two_bars_of_one_day_the_larger_volume_stands_and_of_equal_ones_the_later(
        self, volumes: list[int], close: float
    ) -> None:
        answer = read(
            body(item(times=[str(MONDAY), str(MONDAY + 60)], c=[101, 102], v=volumes)),
            asked=["VCB"],
            interval="1D",
        )
        assert [bar.close for bar in answer.series["VCB"]] == [close]
        assert answer.dropped == {"another bar of the same time": 1}

    def test_an_open_outside_low_and_high_is_kept(self) -> None:
        assert [bar.open for bar in bars(item(times=[MONDAY], o=[120]))] == [120]

    def test_whole_volumes_may_be_written_with_a_fraction(self) -> None:
        assert [bar.volume for bar in bars(item(times=[MONDAY], v=[7.0]))] == [7]


class TestSymbolsWithoutAUsableBar:
    @pytest.mark.parametrize(
        ("odd", "came"),
        [
            (item(times=[]), "its columns are empty (symbol VCB)"),
            (
                item(times=[f"{MONDAY}000", f"{MONDAY + DAY}000"]),
                "none of its 2 bars is usable: time must be epoch seconds (2) (symbol VCB)",
            ),
            (
                item(c=["105", "105"]),
                "none of its 2 bars is usable: close is not a number (2) (symbol VCB)",
            ),
            (
                item(c=[None, 105], v=[7, None]),
                "none of its 2 bars is usable: close is null (1), volume is null (1) (symbol VCB)",
            ),
            ({**item(), "t": None}, "column t is not a list (symbol VCB)"),
        ],
    )
    @pytest.mark.parametrize("interval", ["1D", "1m", "1W"])
    def test_they_are_errors_that_say_what_came(
        self, odd: dict[str, Any], came: str, interval: Any
    ) -> None:
        answer = read(body(odd, item("FPT")), asked=["VCB", "FPT"], interval=interval)
        assert list(answer.series) == ["FPT"]
        assert answer.errors == {"VCB": came}
        assert answer.missing == frozenset()

    def test_one_whose_columns_have_no_values_is_told_apart(self) -> None:
        """Nobody but the caller knows whether it should have some."""
        nothing, nulls = item(times=[]), item("FPT", c=[None, None])
        answer = read(body(nothing, nulls, item("TCB")), asked=["VCB", "FPT", "TCB"], interval="1D")
        assert answer.empty == {"VCB"}
        assert set(answer.errors) == {"VCB", "FPT"}


class TestSeveralObjectsOfASymbol:
    @pytest.mark.parametrize(
        "second", [item(times=[]), {"symbol": "VCB"}, item(c=[None, None]), {**item(), "v": []}]
    )
    def test_one_without_bars_takes_nothing_from_the_full_one(self, second: Any) -> None:
        for order in ([item(), second], [second, item()]):
            answer = read(body(*order), asked=["VCB"], interval="1D")
            assert len(answer.series["VCB"]) == 2
            assert answer.errors == {}
            assert answer.empty == frozenset()

    def test_their_bars_are_read_as_one_series(self) -> None:
        first = item(times=[MONDAY, MONDAY + DAY], v=[7, 7], c=[101, 102])
        second = item(times=[MONDAY + DAY, MONDAY + 2 * DAY], v=[6, 5], c=[103, 104])
        assert [(bar.day.day, bar.close) for bar in bars(first, second)] == [
            (11, 101),
            (12, 102),
            (13, 104),
        ]

    @given(data=st.data())
    def test_however_rows_are_spread_over_objects_the_same_bars_come_out(
        self, data: st.DataObject
    ) -> None:
        rows = data.draw(
            st.lists(
                st.tuples(st.integers(0, 5), st.integers(0, 9)),
                min_size=1,
                max_size=8,
                unique=True,
            )
        )
        cut = data.draw(st.integers(0, len(rows)))

        def of(part: list[tuple[int, int]]) -> dict[str, Any]:
            return item(times=[MONDAY + day * DAY for day, _ in part], v=[v for _, v in part])

        whole = bars(of(rows))
        assert bars(of(rows[:cut]), of(rows[cut:])) == whole
        assert [bar.volume for bar in whole] == [
            max(v for at, v in rows if at == day) for day in sorted({day for day, _ in rows})
        ]


class TestRoundedIndices:
    def index(self, *, indices: tuple[str, ...] = ("VNINDEX",), **columns: list[Any]) -> list[Bar]:
        odd = {**item("VNINDEX", times=[MONDAY], o=[1_625], h=[1_630], l=[1_620]), **columns}
        answer = read(body(odd), asked=["VNINDEX"], interval="1D", indices=indices)
        return answer.series.get("VNINDEX", [])

    def test_its_high_and_low_are_widened_to_a_close_a_rounding_away(self) -> None:
        (bar,) = self.index(c=[1_630.004])
        assert (bar.low, bar.close, bar.high) == (1_620, 1_630.004, 1_630.004)
        (bar,) = self.index(c=[1_619.996])
        assert (bar.low, bar.close, bar.high) == (1_619.996, 1_619.996, 1_630)

    @pytest.mark.parametrize("close", [1_630.02, 1_619.98, 1_700, 5])
    def test_what_is_further_away_is_no_rounding(self, close: float) -> None:
        assert self.index(c=[close]) == []

    def test_a_share_isnt_rounded(self) -> None:
        assert self.index(c=[1_630.004], indices=()) == []

    def test_low_above_high_is_no_rounding(self) -> None:
        assert self.index(c=[1_630.004], l=[1_630.003]) == []


class TestSpellings:
    @pytest.mark.parametrize("said", ["HNXIndex", "HNXINDEX", "hnxindex"])
    def test_an_answer_maps_back_whatever_its_case(self, said: str) -> None:
        spellings = {"HNXINDEX": "HNXIndex", "VN": "VNAll"}
        answer = read(body(item(said)), asked=["HNXINDEX"], interval="1D", spellings=spellings)
        assert [bar.symbol for bar in answer.series["HNXINDEX"]] == ["HNXINDEX"] * 2

    def test_another_name_maps_back_to_its_symbol_only(self) -> None:
        answer = read(
            body(item("VNAll"), item("VN")), asked=["VN"], interval="1D", spellings={"VN": "VNAll"}
        )
        assert len(answer.series["VN"]) == 2
        assert answer.dropped == {"an object of no symbol that was asked for": 1}

    def test_letters_outside_ascii_are_no_spelling(self) -> None:
        answer = read(body(item("\u00df")), asked=["SS"], interval="1D")
        assert answer.missing == {"SS"}


class TestBadBars:
    @pytest.mark.parametrize(
        ("column", "value", "reason"),
        [
            ("c", None, "close is null"),
            ("v", None, "volume is null"),
            ("o", math.nan, "open is not finite"),
            ("h", math.inf, "high is not finite"),
            ("l", -math.inf, "low is not finite"),
            ("c", 10**400, "close is not finite"),
            ("o", 0, "open must be a price above 0"),
            ("l", -5, "low must be a price above 0"),
            ("l", 111, "low must not be above high"),
            ("c", 111, "close must lie between low and high"),
            ("c", 89, "close must lie between low and high"),
            ("v", -1, "volume must be from 0 to 2^53 - 1"),
            ("v", 2**53, "volume must be from 0 to 2^53 - 1"),
            ("v", 1.5, "volume is not a whole number"),
            ("v", math.nan, "volume is not finite"),
            ("v", True, "volume is not a number"),
            ("o", True, "open is not a number"),
            ("h", "110", "high is not a number"),
            ("c", [105], "close is not a number"),
            ("t", "not-a-time", "time must be epoch seconds"),
            ("t", None, "time must be epoch seconds"),
            ("t", True, "time must be epoch seconds"),
            ("t", -DAY, "time must be epoch seconds"),
            ("t", f"{MONDAY}000", "time must be epoch seconds"),
            ("t", float(MONDAY), "time must be epoch seconds"),
            ("t", "٣", "time must be epoch seconds"),
        ],
    )
    def test_a_bad_bar_is_dropped_and_counted_and_the_other_used(
        self, column: str, value: object, reason: str
    ) -> None:
        wrong = item()
        wrong[column][0] = value
        answer = read(body(wrong), asked=["VCB"], interval="1D")
        assert [bar.day for bar in answer.series["VCB"]] == [dt.date(2025, 8, 12)]
        ((counted, times),) = answer.dropped.items()
        assert counted.startswith(reason)
        assert times == 1

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"c": [105]}, r"column c has 1 values, t has 2 \(symbol VCB\)"),
            ({"v": {}}, r"column v is not a list \(symbol VCB\)"),
            ({"t": None}, r"column t is not a list \(symbol VCB\)"),
        ],
    )
    def test_a_wrong_object_spoils_its_symbol_only(
        self, wrong: dict[str, object], message: str
    ) -> None:
        items = body({**item(), **wrong}, item("FPT"))
        answer = read(items, asked=["VCB", "FPT", "TCB"], interval="1D")
        assert list(answer.errors) == ["VCB"]
        with pytest.raises(AnswerError, match=message):
            raise AnswerError(answer.errors["VCB"])
        assert list(answer.series) == ["FPT"]
        assert answer.missing == {"TCB"}

    def test_a_missing_column_is_named(self) -> None:
        wrong = item()
        del wrong["v"]
        answer = read(body(wrong), asked=["VCB"], interval="1D")
        assert answer.errors == {"VCB": "column v is missing (symbol VCB)"}

    @pytest.mark.parametrize("stray", [item("XXX"), {"t": []}, {"symbol": ["VCB"]}, 5, None])
    def test_what_wasnt_asked_for_is_counted_and_not_used(self, stray: object) -> None:
        answer = read(body(stray, item()), asked=["VCB"], interval="1D")
        assert list(answer.series) == ["VCB"]
        assert answer.dropped == {"an object of no symbol that was asked for": 1}


class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("content", "error", "message"),
        [
            (b" <html>Just a moment...</html>", HtmlError, "HTML instead of JSON"),
            (b"", NotJsonError, "an empty body"),
            (b"[{]", NotJsonError, "broken JSON: it ends or errs at character 2 of 3"),
            (body(item())[:50], NotJsonError, "broken JSON"),
            (b"\xff\xfe\xfd", NotJsonError, "can't be read"),
            (b"[" * 200_000, NotJsonError, "can't be read"),
            (b"[" + b"9" * 10_000 + b"]", NotJsonError, "too many digits"),
            (b'{"status": "error"}', AnswerError, "an object instead of a list"),
            (b"null", AnswerError, "a single value instead of a list"),
        ],
    )
    def test_the_message_says_what_the_upstream_did(
        self, content: bytes, error: type[UpstreamError], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            read(content, asked=["VCB"], interval="1D")

    def test_an_empty_list_leaves_all_out(self) -> None:
        answer = read(b"[]", asked=["VCB", "FPT"], interval="1D")
        assert answer.missing == {"VCB", "FPT"}


COLUMNS = st.fixed_dictionaries(
    {
        "times": st.lists(
            st.sampled_from([str(MONDAY), MONDAY, str(MONDAY + DAY), None]), max_size=MOST_ROWS + 1
        ),
        "close": st.sampled_from([105, 105.0, 106, True, math.nan]),
        "volume": st.sampled_from([1, 1.0, True, 0, False, None, 8]),
    }
)


class TestRowsThatComeAgain:
    def answered(self, last: Rows, *, volumes: list[Any] | None = None) -> list[Bar]:
        content = body(item(v=volumes or [7, 7]))
        return read(content, asked=["VCB"], interval="1D", last=last).series["VCB"]

    def test_a_row_that_comes_again_is_the_same_bar(self) -> None:
        last = Rows()
        before, after = self.answered(last), self.answered(last, volumes=[7, 8])
        assert after[0] is before[0]
        assert after[1].volume == 8
        assert self.answered(last, volumes=[7, 8])[1] is after[1]

    def test_whole_histories_arent_kept(self) -> None:
        last = Rows()
        times = [str(MONDAY + day * DAY) for day in range(MOST_ROWS + 1)]
        content = body(item(times=times))
        read(content, asked=["VCB"], interval="1D", last=last)
        assert last.of("VCB") == []

    @given(st.lists(COLUMNS, max_size=6))
    def test_the_last_answer_changes_nothing(self, answers: list[dict[str, Any]]) -> None:
        last = Rows()
        for columns in answers:
            count = len(columns["times"])
            closes, volumes = [columns["close"]] * count, [columns["volume"]] * count
            content = body(item(times=columns["times"], c=closes, v=volumes))
            assert read(content, asked=["VCB"], interval="1D", last=last) == read(
                content, asked=["VCB"], interval="1D"
            )


class TestFolding:
    def points(self, interval: Any, times: list[Any], **columns: list[Any]) -> list[Point]:
        answer = read(body({**item(times=times), **columns}), asked=["VCB"], interval=interval)
        return answer.series["VCB"]

    def test_a_point_has_the_first_open_and_the_last_close(self) -> None:
        times = [str(MONDAY + 7_200 + 60 * minute) for minute in range(6)]
        first, second = self.points(
            "5m",
            times,
            o=[1, 2, 3, 4, 5, 6],
            h=[11, 19, 13, 14, 15, 16],
            l=[1, 2, 0.5, 4, 5, 6],
            c=[5, 6, 7, 8, 9, 10],
            v=[1, 2, 3, 4, 5, 6],
        )
        start = dt.datetime(2025, 8, 11, 2, tzinfo=dt.UTC)
        assert first == Point("VCB", start, 1, 19, 0.5, 9, 15)
        assert second == Point("VCB", start + dt.timedelta(minutes=5), 6, 16, 6, 10, 6)

    def test_times_may_come_in_any_order(self) -> None:
        (point,) = self.points("5m", [MONDAY + 60, MONDAY], o=[101, 102], c=[103, 104])
        assert (point.open, point.close) == (102, 103)

    @pytest.mark.parametrize(
        ("interval", "minute"), [("1m", 47), ("5m", 45), ("15m", 45), ("30m", 30), ("1H", 0)]
    )
    def test_points_of_a_day_are_aligned_to_the_hour(self, interval: Any, minute: int) -> None:
        (point,) = self.points(interval, [str(MONDAY + 7_200 + 47 * 60 + 30)])
        assert point.time == dt.datetime(2025, 8, 11, 2, minute, tzinfo=dt.UTC)

    def test_a_week_begins_on_monday(self) -> None:
        days = [MONDAY - 3 * DAY, MONDAY, MONDAY + 4 * DAY, MONDAY + 7 * DAY]
        weeks = self.points("1W", days, v=[1, 2, 3, 4])
        assert [(week.time.date().isoformat(), week.volume) for week in weeks] == [
            ("2025-08-04", 1),
            ("2025-08-11", 5),
            ("2025-08-18", 4),
        ]

    def test_a_month_begins_on_its_first_day(self) -> None:
        months = self.points("1M", [MONDAY, MONDAY + 10 * DAY, MONDAY + 21 * DAY], v=[1, 2, 3])
        assert [(month.time.date().isoformat(), month.volume) for month in months] == [
            ("2025-08-01", 3),
            ("2025-09-01", 3),
        ]

    def test_a_minute_that_came_twice_counts_once(self) -> None:
        (point,) = self.points("5m", [MONDAY, MONDAY + 30], v=[5, 7])
        assert point.volume == 7

    @pytest.mark.parametrize(
        ("interval", "source"),
        [("1m", "ONE_MINUTE"), ("30m", "ONE_MINUTE"), ("1H", "ONE_HOUR"), ("1M", "ONE_DAY")],
    )
    def test_an_interval_is_folded_from_what_the_upstream_offers(
        self, interval: Any, source: str
    ) -> None:
        assert frame(interval).source == source

    def test_another_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match="one of 1m, 5m, 15m, 30m, 1H, 1D, 1W, 1M"):
            frame("2D")  # type: ignore[arg-type]


INTERVALS = st.sampled_from(["1m", "5m", "15m", "30m", "1H", "1D", "1W", "1M"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
CELLS = st.one_of(
    st.integers(-10, 200), st.floats(), st.none(), st.booleans(), st.just("5"), st.integers()
)
TIMES = st.one_of(
    st.integers(MONDAY, MONDAY + 90 * DAY).map(str), st.integers(), st.none(), st.text(max_size=12)
)


@st.composite
def odd_items(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(0, 6))
    columns = {
        key: draw(st.lists(CELLS, min_size=count, max_size=count + draw(st.integers(0, 1))))
        for key in "ohlcv"
    }
    return {"symbol": "VCB", "t": draw(st.lists(TIMES, min_size=count, max_size=count)), **columns}


class TestAnything:
    @given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_any_body_is_read_or_refused_as_the_upstreams_fault(self, content: bytes) -> None:
        try:
            answer = read(content, asked=["VCB"], interval="1D")
        except UpstreamError:
            return
        assert answer.missing | answer.series.keys() | answer.errors.keys() == {"VCB"}

    @given(items=st.lists(odd_items() | JSON, max_size=3))
    def test_every_bar_that_comes_out_is_valid_and_every_day_comes_once(
        self, items: list[Any]
    ) -> None:
        answer = read(body(*items), asked=["VCB"], interval="1D")
        found = answer.series.get("VCB", [])
        for bar in found:
            assert 0 < bar.low <= bar.close <= bar.high < math.inf
            assert bar.open > 0
            assert type(bar.volume) is int
            assert bar.volume >= 0
        days = [bar.day for bar in found]
        assert days == sorted(set(days))

    @given(
        interval=INTERVALS,
        rows=st.lists(
            st.tuples(
                st.integers(MONDAY // 60, MONDAY // 60 + 40 * 1_440),
                st.tuples(*[st.integers(1, 1_000)] * 4),
                st.integers(0, 10**9),
            ),
            max_size=40,
            unique_by=lambda row: row[0] // 1_440,
        ),
    )
    def test_folding_keeps_the_volume_and_the_bounds(
        self, interval: Any, rows: list[tuple[int, tuple[int, int, int, int], int]]
    ) -> None:
        # One bar a day at most, so that no two are the same bar in any frame.
        rows.sort()
        times = [row[0] * 60 for row in rows]
        lows, highs = [min(row[1]) for row in rows], [max(row[1]) for row in rows]
        closes, volumes = [row[1][2] for row in rows], [row[2] for row in rows]
        opens = [row[1][0] for row in rows]
        days = [time // DAY * DAY for time in times]
        times = days if interval in ("1D", "1W", "1M") else times
        answer = read(
            body(item(times=times, o=opens, h=highs, l=lows, c=closes, v=volumes)),
            asked=["VCB"],
            interval=interval,
        )
        points = answer.series.get("VCB", [])
        assert sum(point.volume for point in points) == sum(volumes)
        assert max((point.high for point in points), default=0) == max(highs, default=0)
        assert min((point.low for point in points), default=0) == min(lows, default=0)
        assert [point.close for point in points][-1:] == closes[-1:]
        assert [point.open for point in points][:1] == opens[:1]
