"""What a core network says is read at one door: into values that can be trusted, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.doors import a_bar, fields, json_values, wire
from tickers.core_answers import (
    MAX_DETAIL,
    MAX_SYMBOLS,
    CoreAnswerError,
    read_age,
    read_changes,
    read_detail,
    read_market,
    read_position,
)
from tickers.store.records import MAX_SERIES, Position

POSITION = "5f0c1d2e3a4b5c6d-1025"


class TestPosition:
    @pytest.mark.parametrize("text", [POSITION, f'"{POSITION}"', f'W/"{POSITION}"'])
    def test_is_read_from_an_etag_too(self, text: str) -> None:
        assert read_position(text) == Position("5f0c1d2e3a4b5c6d", 1_025)

    @pytest.mark.parametrize(
        "text",
        [
            "a" * 1_000_000 + "-1",
            "a-" + "9" * 300,
            f"a-{2**53}",
            "a-" + "1" * 62,
            "",
            None,
            7,
            ["a-1"],
            "a-1-1",
        ],
    )
    def test_is_bounded_so_that_it_can_be_asked_with(self, text: object) -> None:
        with pytest.raises(CoreAnswerError, match="position"):
            read_position(text)

    def test_of_the_largest_revision_is_one(self) -> None:
        assert read_position(f"a-{2**53 - 1}").revision == 2**53 - 1


class TestAge:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("7", 7), (" 7 ", 7), ("9" * 400, 999_999_999), ("", 0), ("-1", 0), ("soon", 0)],
    )
    def test_is_whole_seconds_or_nothing(self, header: str, seconds: float) -> None:
        assert read_age(header) == seconds


class TestDetail:
    def test_is_one_printable_line(self) -> None:
        told = {"detail": "No\r\n2025 ERROR forged \x1b[31m\u202e Giá", "code": "gone"}
        assert read_detail(json.dumps(told).encode()) == "No 2025 ERROR forged [31m Giá"

    def test_is_short(self) -> None:
        assert len(read_detail(json.dumps({"detail": "a" * 4_000}).encode())) == MAX_DETAIL

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"<html>", b'{"detail": ', b'{"detail": 7}', b'{"detail": null}', b"[]", b"7"),
            *(b"[" * 4_000, b"9" * 4_000, b"\xff\xfe"),
        ],
    )
    def test_is_nothing_where_none_is_said(self, body: bytes) -> None:
        assert read_detail(body) == ""


class TestMarket:
    def test_is_the_valid_bars_of_each_symbol(self) -> None:
        market = read_market({"VCB": [wire(), wire(close=-1)], "PVS": [wire("PVS")]})
        assert market.series == {"VCB": [a_bar()], "PVS": [a_bar("PVS")]}
        assert market.dropped.bars == 1

    def test_has_no_bar_of_another_symbol(self) -> None:
        market = read_market({"VCB": [wire("PVS")]})
        assert market.series == {"VCB": []}
        assert market.dropped.bars == 1

    def test_a_series_of_more_bars_than_there_are_days_spoils_only_its_symbol(self) -> None:
        market = read_market({"VCB": [{}] * (MAX_SERIES + 1), "PVS": [wire("PVS")]})
        assert market.series == {"PVS": [a_bar("PVS")]}
        assert market.dropped.symbols.total() == 1

    def test_of_more_symbols_than_any_market_has_is_none(self) -> None:
        with pytest.raises(CoreAnswerError, match="more than any market"):
            read_market({f"S{n}": [] for n in range(MAX_SYMBOLS + 1)})

    @given(st.dictionaries(st.text(), st.lists(fields, max_size=3)) | json_values)
    def test_of_whatever_is_said_is_valid_or_refused(self, body: Any) -> None:
        body = json.loads(json.dumps(body))
        try:
            market = read_market(body)
        except CoreAnswerError:
            assert not isinstance(body, dict)
            return
        assert all(bar.symbol == symbol for symbol, bars in market.series.items() for bar in bars)


class TestChanges:
    def test_are_bars_and_symbols(self) -> None:
        body = {"position": POSITION, "bars": [wire()], "replaced": ["FPT"], "removed": ["ZZZ"]}
        changes = read_changes(body)
        assert (changes.bars, changes.replaced, changes.removed) == ([a_bar()], ["FPT"], ["ZZZ"])

    def test_of_a_node_that_removes_nothing_have_no_removed(self) -> None:
        changes = read_changes({"position": POSITION, "bars": [], "replaced": []})
        assert changes.removed == []

    @pytest.mark.parametrize("name", ["bars", "replaced", "removed"])
    @pytest.mark.parametrize("value", [7, "VCB", {}, True])
    def test_with_a_list_that_is_none_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(CoreAnswerError, match=name):
            read_changes({"position": POSITION, name: value})

    def test_name_each_symbol_once_and_nothing_else(self) -> None:
        changes = read_changes({"position": POSITION, "replaced": ["FPT", 7, "FPT", "V B", None]})
        assert changes.replaced == ["FPT"]
        assert changes.dropped.symbols.total() == 3

    @given(
        st.fixed_dictionaries(
            {"position": st.just(POSITION) | json_values},
            optional={
                "bars": st.lists(fields, max_size=3) | json_values,
                "replaced": st.lists(json_values, max_size=3) | json_values,
                "removed": st.lists(json_values, max_size=3) | json_values,
            },
        )
        | json_values
    )
    def test_of_whatever_is_said_are_read_or_refused(self, body: Any) -> None:
        body = json.loads(json.dumps(body))
        try:
            changes = read_changes(body)
        except CoreAnswerError:
            return
        assert changes.position == read_position(body["position"])
        assert all(isinstance(symbol, str) for symbol in changes.replaced + changes.removed)
