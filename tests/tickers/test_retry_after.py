"""What a Retry-After header asks for, whatever it says."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.retry_after import seconds_asked


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("9" * 5_000, 999_999_999),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert seconds_asked(value) == seconds


def test_a_date_to_come_is_a_wait() -> None:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    wait = seconds_asked(moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert wait == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    "value",
    [
        "+9999999999999999",
        "Wed, 21 Oct 2015 07:28:00 +9999999999999999",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Fri, 99 Foo 2025 99:99:99 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
)
def test_an_absurd_one_doesnt_raise(value: str) -> None:
    assert seconds_asked(value) in (None, 0)


@given(
    st.text()
    | st.builds(
        "Wed, {} Oct {} {}:28:00 {}{}".format,
        st.integers(),
        st.integers(),
        st.integers(),
        st.sampled_from("+-"),
        st.integers(0),
    )
)
def test_no_text_makes_it_raise_or_go_back_in_time(value: str) -> None:
    assert (seconds_asked(value) or 0) >= 0
