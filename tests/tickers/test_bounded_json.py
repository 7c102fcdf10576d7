"""JSON from others is looked at before it is built."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.bounded_json import MAX_DEPTH, MAX_DIGITS, JsonError, Shape, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
BAR = {
    "symbol": "VCB",
    "time": "2025-08-15T00:00:00Z",
    "open": 64300,
    "high": 64300,
    "low": 64300,
    "close": 64300,
    "volume": 0,
}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def feed(text: bytes, piece: int) -> None:
    shape = Shape()
    for start in range(0, len(text), piece):
        shape.feed(text[start : start + piece])


class TestLoads:
    @given(VALUES, st.booleans())
    def test_it_reads_what_json_reads(self, value: object, ascii_only: bool) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert loads(text.encode()) == json.loads(text)

    def test_nan_and_infinity_are_the_callers_to_judge(self) -> None:
        nan, infinity = loads(b"[NaN, Infinity]")
        assert math.isnan(nan)
        assert math.isinf(infinity)

    @given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()[1:]))
    def test_whatever_comes_it_is_read_or_a_json_error(self, content: bytes) -> None:
        with contextlib.suppress(JsonError):
            loads(content)

    def test_an_error_says_where_the_text_is_broken(self) -> None:
        with pytest.raises(JsonError) as caught:
            loads(b"[{]")
        assert (caught.value.position, caught.value.length) == (2, 3)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
    def test_other_encodings_than_utf_8_are_refused(self, encoding: str) -> None:
        with pytest.raises(JsonError):
            loads('["é"]'.encode(encoding))


class TestShape:
    @pytest.mark.parametrize("piece", [1, 2, 3, 7, 1_000])
    def test_its_pieces_may_be_of_any_size(self, piece: int) -> None:
        for content in ({"a": ["[[[", "\\", '"[', {"]": "}"}]}, ["\\\\", '\\"{[', "[" * 100]):
            feed(json.dumps(content).encode(), piece)
        feed(nested(MAX_DEPTH), piece)
        with pytest.raises(JsonError, match="too deep"):
            feed(nested(MAX_DEPTH + 1), piece)

    @given(st.text('[]{}"\\', max_size=12), st.integers(1, 9), st.integers(30, 34))
    def test_no_string_hides_depth_or_makes_it(self, text: str, piece: int, depth: int) -> None:
        content = (b"[" + json.dumps(text).encode() + b",") * depth + b"0" + b"]" * depth
        if depth > MAX_DEPTH:
            with pytest.raises(JsonError, match="too deep"):
                feed(content, piece)
        else:
            feed(content, piece)

    @pytest.mark.parametrize("piece", [100, 999, 1_000, 5_000])
    def test_a_number_has_a_bounded_number_of_digits(self, piece: int) -> None:
        feed(b"[1" + b"0" * (MAX_DIGITS - 2) + b"]", piece)
        with pytest.raises(JsonError, match="digits"):
            feed(b"[1" + b"0" * (MAX_DIGITS - 1) + b"]", piece)

    @pytest.mark.parametrize(
        ("unit", "says"),
        [
            (b"{},", "lists and objects"),
            (b"[[]],", "lists and objects"),
            (b"1,", "values"),
            (b"{1:1},", "lists and objects"),
            (b" ", "more values"),
            (b"x" * 500 + b",", "more values"),
        ],
    )
    def test_what_is_too_dense_or_too_thin_for_a_market_is_refused(
        self, unit: bytes, says: str
    ) -> None:
        with pytest.raises(JsonError, match=says):
            feed(b"[" + unit * (8_000_000 // len(unit)), 65_536)

    def test_a_small_text_may_be_of_any_shape(self) -> None:
        for unit in (b"{},", b"1,", b" "):
            feed(b"[" + unit * (200_000 // len(unit)), 65_536)

    @pytest.mark.parametrize("unit", ['"é":12345,', '"\\u00e9":12345,'])
    def test_a_large_text_is_ascii(self, unit: str) -> None:
        with pytest.raises(JsonError, match="ASCII"):
            feed(unit.encode() * (20_000_000 // len(unit)), 65_536)

    @pytest.mark.parametrize("indent", [None, 4])
    def test_whole_markets_pass(self, indent: int | None) -> None:
        market = {f"AA{number}": [BAR] * 700 for number in range(100)}
        feed(json.dumps(market, indent=indent).encode(), 65_536)

    def test_the_upstreams_answers_pass(self) -> None:
        columns = {key: [500] * 10_000 for key in "ohlc"} | {"v": [0] * 10_000}
        item = {"symbol": "VCB", **columns, "t": ["1755216000"] * 10_000}
        feed(json.dumps([item] * 50, separators=(",", ":")).encode(), 65_536)
        one = {key: [1] for key in "ohlcvt"}
        feed(json.dumps([{"symbol": "VCB", **one}] * 3_000).encode(), 65_536)
