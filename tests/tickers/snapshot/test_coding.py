"""What a client prefers is what it gets, of what there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickers.snapshot.coding import preferred


def name_of(header: str) -> str | None:
    coding = preferred(header)
    return coding.NAME if coding else None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("deflate, br", None),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd, gzip", "zstd"),
        ("gzip;q=0.5, zstd;q=0.5", "zstd"),
        ("gzip;q=1.0, zstd;q=0.9", "gzip"),
        ("gzip ; q=0.8,zstd;q=0.801", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("zstd; q=0.000, gzip;q=0.001", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.0, zstd;q=0", None),
        ("*", "zstd"),
        ("*;q=0.5, gzip", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("*;q=0", None),
        ("gzip, *;q=0", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=nonsense, zstd;q=2", None),
        ("gzip;q=0.1234", None),
        (",, gzip ,", "gzip"),
    ],
)
def test_the_clients_weights_choose_and_then_our_order(header: str, expected: str | None) -> None:
    assert name_of(header) == expected


@given(st.text(max_size=60))
def test_any_header_is_read(header: str) -> None:
    assert name_of(header) in (None, "gzip", "zstd")


weights = st.none() | st.integers(0, 1_000)


@given(gzip=weights, zstd=weights)
def test_nothing_is_chosen_that_is_refused_or_weighs_less(
    gzip: int | None, zstd: int | None
) -> None:
    given = {"gzip": gzip, "zstd": zstd}
    header = ", ".join(f"{name};q={w / 1000:.3f}" for name, w in given.items() if w is not None)
    chosen = name_of(header)
    most = max((weight or 0) for weight in given.values())
    assert chosen is None if most == 0 else (given[chosen or ""] or 0) == most
