import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.wire import (
    ABOUT_A_BAR,
    DETAILS,
    MAX_LIST,
    Code,
    TooLongError,
    WireError,
    body_of,
    decode,
    refuses_bars,
)
from tests.support.doors import a_bar, fields, json_values, satisfies_the_rules, wire
from tickers.bar import BarError


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


class TestDecode:
    def test_takes_one_bar(self) -> None:
        gossip = decode(encoded(wire()))
        assert gossip.entries == [a_bar()]
        assert not gossip.is_list

    def test_takes_a_list_in_its_order(self) -> None:
        gossip = decode(encoded([wire("PVS"), wire("VCB")]))
        assert gossip.entries == [a_bar("PVS"), a_bar("VCB")]
        assert gossip.is_list

    def test_a_list_of_one_is_a_list(self) -> None:
        assert decode(encoded([wire()])).is_list

    def test_a_wrong_entry_spoils_only_itself(self) -> None:
        first, *wrong, last = decode(
            encoded([wire(), 7, None, [], "VCB", {}, wire(close=-1), wire("PVS")])
        ).entries
        assert (first, last) == (a_bar(), a_bar("PVS"))
        assert [type(entry) for entry in wrong] == [BarError] * 6

    def test_says_what_is_wrong_with_a_bar(self) -> None:
        (error,) = decode(encoded(wire(volume=1.5))).entries
        assert str(error) == "volume must be a whole number"

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "body is empty"),
            (b"   ", "isn't JSON"),
            (b"{", "isn't JSON"),
            (encoded(wire())[:-1], "isn't JSON"),
            (encoded(wire()) + b"}", "isn't JSON"),
            (b"symbol=VCB", "isn't JSON"),
            (b"null", "must be one bar or a list"),
            (b"true", "must be one bar or a list"),
            (b"1659.7", "must be one bar or a list"),
            (b'"VCB"', "must be one bar or a list"),
            (b"[]", "list is empty"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"a":' * 100_000, "nested too deeply"),
            (b"[" + b"9" * 5_000 + b"]", "isn't JSON"),  # more digits than Python reads
        ],
    )
    def test_refuses_what_is_no_gossip(self, body: bytes, expected: str) -> None:
        with pytest.raises(WireError, match=expected):
            decode(body)

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
    def test_refuses_constants_that_json_doesnt_have(self, constant: str) -> None:
        body = json.dumps(wire(close="@")).replace('"@"', constant).encode()
        with pytest.raises(WireError, match="isn't JSON"):
            decode(body)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be"])
    def test_refuses_other_encodings_than_utf_8(self, encoding: str) -> None:
        with pytest.raises(WireError, match="isn't JSON"):
            decode(json.dumps(wire()).encode(encoding))

    def test_refuses_bytes_that_are_no_utf_8(self) -> None:
        lone_surrogate = json.dumps(wire(symbol="@")).encode().replace(b"@", b"\xed\xa0\x80")
        for body in (lone_surrogate, b'{"symbol":"\xff"}', b"\x80"):
            with pytest.raises(WireError, match="isn't JSON"):
                decode(body)

    def test_ignores_a_byte_order_mark(self) -> None:
        assert decode(b"\xef\xbb\xbf" + encoded(wire())).entries == [a_bar()]

    def test_of_a_key_that_stands_twice_the_last_counts(self) -> None:
        body = encoded(wire()).replace(b'{"symbol"', b'{"volume": 7, "symbol"')
        assert decode(body).entries == [a_bar()]


@pytest.mark.parametrize("symbols", [["VCB"], ["VCB", "PVS"]])
def test_a_body_that_we_send_is_read_as_the_same_bars(symbols: list[str]) -> None:
    gossip = decode(body_of([a_bar(symbol).encode() for symbol in symbols]))
    assert gossip.entries == [a_bar(symbol) for symbol in symbols]
    assert gossip.is_list is (len(symbols) > 1)


class TestListLength:
    def test_a_thousand_bars_are_taken(self) -> None:
        assert MAX_LIST == 1_000
        assert len(decode(encoded([wire()] * 1_000)).entries) == 1_000

    def test_one_more_is_too_long(self) -> None:
        with pytest.raises(TooLongError, match="at most 1000 bars"):
            decode(encoded([wire()] * 1_001))

    def test_too_long_is_said_of_anything_that_long(self) -> None:
        with pytest.raises(TooLongError):
            decode(encoded([0] * 1_001))


@given(body=st.one_of(st.binary(), st.one_of(fields, st.lists(fields), json_values).map(encoded)))
def test_whatever_is_sent_comes_to_valid_bars_or_errors(body: bytes) -> None:
    try:
        gossip = decode(body)
    except WireError:
        return
    assert gossip.entries
    for entry in gossip.entries:
        assert isinstance(entry, BarError) or satisfies_the_rules(entry)


class TestRefusesBars:
    @pytest.mark.parametrize("code", Code)
    def test_is_decided_by_the_code(self, code: Code) -> None:
        body = encoded({"detail": "in whatever words", "code": code})
        assert refuses_bars(body) == (code in ABOUT_A_BAR)

    def test_takes_the_code_before_the_words(self) -> None:
        assert not refuses_bars(
            encoded({"detail": DETAILS[Code.OTHER_DAY], "code": "list_too_long"})
        )

    @pytest.mark.parametrize("detail", DETAILS.values())
    def test_knows_the_words_of_nodes_without_codes(self, detail: str) -> None:
        assert refuses_bars(encoded({"detail": detail}))
        assert refuses_bars(detail.encode())

    @given(st.binary() | json_values.map(encoded) | st.integers(1, 5_000).map(lambda n: b"[" * n))
    def test_says_no_of_anything_else(self, body: bytes) -> None:
        assert not refuses_bars(body)
