import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reputation.evidence import MAX_EVIDENCE, bounded, lines

BAR = {"symbol": "VCB", "time": "2025-08-15", "close": 150380.0, "volume": 1}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=50,
)


def test_a_bar_and_a_short_list_are_kept_as_they_are() -> None:
    assert bounded(BAR) == BAR
    assert bounded([BAR] * 5) == [BAR] * 5


def test_a_long_list_is_cut_and_says_how_long_it_was() -> None:
    kept = bounded([BAR] * 1_000)
    whole = json.dumps([BAR] * 1_000, separators=(",", ":"))
    assert isinstance(kept, dict)
    assert kept["bytes"] == len(whole)
    assert whole.startswith(kept["excerpt"])
    assert "VCB" in kept["excerpt"]


@given(json_values)
def test_whatever_was_sent_fits_and_is_strict_json(evidence: object) -> None:
    text = json.dumps(bounded(evidence), allow_nan=False)
    assert len(json.dumps(json.loads(text), separators=(",", ":"))) <= MAX_EVIDENCE


@pytest.mark.parametrize(
    "evidence", ['"' * 5_000, "\\" * 5_000, "\x00" * 5_000, "đ" * 5_000, "\U0001f600" * 5_000]
)
def test_escapes_dont_grow_it_past_the_limit(evidence: str) -> None:
    assert len(json.dumps(bounded(evidence))) <= MAX_EVIDENCE


@pytest.mark.parametrize("evidence", ["a\x00b", ["\ud800"], {"\udfff": 1}, float("nan")])
def test_what_postgresql_refuses_is_kept_as_text(evidence: object) -> None:
    text = json.dumps(evidence, separators=(",", ":"))
    assert bounded(evidence) == {"excerpt": text, "bytes": len(text)}


def test_what_is_nested_too_deeply_is_named_so() -> None:
    evidence: list[object] = []
    for _ in range(100_000):
        evidence = [evidence]
    assert bounded(evidence) == {"excerpt": "nested too deeply to be written down"}


class TestLines:
    """A line for each thing that was sent, as it was sent."""

    def test_of_a_list(self) -> None:
        assert lines(bounded([BAR, BAR, "and 7 more"])) == [json.dumps(BAR)] * 2 + ["and 7 more"]

    def test_of_text_arent_escaped_again(self) -> None:
        assert lines(bounded([json.dumps(BAR)])) == [json.dumps(BAR)]

    def test_of_an_excerpt_say_what_it_is_of(self) -> None:
        first, second = lines(bounded([BAR] * 1_000))
        assert first.startswith('[{"symbol":"VCB"')
        assert second.startswith("the beginning of ")

    def test_of_nothing_are_none(self) -> None:
        assert lines({}) == []

    @given(json_values)
    def test_of_whatever_is_kept_are_text(self, evidence: object) -> None:
        assert all(isinstance(line, str) for line in lines(bounded(evidence)))
